"""Layer norm and RMS norm: each row of a matrix normalised. A weight or a bias may be None."""

import numpy as np

from minidl.kernels.cpu.blocks import compiled_normalization, row_blocks, thread_rows, use_compiled
from minidl.kernels.cpu.threads import split, split_sum

__all__ = ["layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"]


def or_constant(parameter, value, width, dtype):
    return np.full(width, value, dtype) if parameter is None else parameter


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    rows, width = x.shape
    weight, bias = or_constant(weight, 1, width, x.dtype), or_constant(bias, 0, width, x.dtype)
    y = np.empty(x.shape, x.dtype)
    mean, inverse = np.empty((rows, 1), x.dtype), np.empty((rows, 1), x.dtype)
    if use_compiled(x):
        kernel, x, eps = compiled_normalization().layer_norm, np.ascontiguousarray(x), np.float32(eps)
        found = y, mean[:, 0], inverse[:, 0]
        split(rows, lambda part: kernel(x[part], weight, bias, eps, *(a[part] for a in found)), thread_rows(width))
        return y, mean, inverse
    for part in row_blocks(rows, width):
        out = y[part]
        x[part].mean(axis=1, keepdims=True, out=mean[part])
        np.subtract(x[part], mean[part], out=out)
        variance = np.einsum("rw,rw->r", out, out)[:, None] / width
        np.divide(1, np.sqrt(variance + eps), out=inverse[part])
        out *= inverse[part]
        out *= weight
        out += bias
    return y, mean, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (rows, width), weight (width,) and bias (width,)."""
    rows, width = x.shape
    weight = or_constant(weight, 1, width, x.dtype)
    grad_x = np.empty(x.shape, x.dtype)
    grad_weight, grad_bias = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    if use_compiled(x):
        kernel, given = compiled_normalization().layer_norm_grad, (np.ascontiguousarray(a) for a in (grad, x))
        given = *given, mean[:, 0], inverse[:, 0]

        def over(part):
            sums = np.zeros((2, width), x.dtype)
            kernel(*(a[part] for a in given), weight, grad_x[part], *sums)
            return sums

        return grad_x, *split_sum(rows, over, thread_rows(width))
    for part in row_blocks(rows, width):
        g, out = grad[part], grad_x[part]
        normal = (x[part] - mean[part]) * inverse[part]
        grad_bias += g.sum(axis=0)
        grad_weight += np.einsum("rw,rw->w", g, normal)
        np.multiply(g, weight, out=out)
        along = np.einsum("rw,rw->r", out, normal)[:, None] / width
        out -= out.mean(axis=1, keepdims=True)
        normal *= along
        out -= normal
        out *= inverse[part]
    return grad_x, grad_weight, grad_bias


def rms_norm(x, weight, eps):
    """x (rows, width), weight (width,) -> y (rows, width), 1/root mean square (rows, 1)."""
    rows, width = x.shape
    weight = or_constant(weight, 1, width, x.dtype)
    y, inverse = np.empty(x.shape, x.dtype), np.empty((rows, 1), x.dtype)
    if use_compiled(x):
        kernel, x, eps = compiled_normalization().rms_norm, np.ascontiguousarray(x), np.float32(eps)
        split(rows, lambda part: kernel(x[part], weight, eps, y[part], inverse[part, 0]), thread_rows(width))
        return y, inverse
    for part in row_blocks(rows, width):
        square = np.einsum("rw,rw->r", x[part], x[part])[:, None] / width
        np.divide(1, np.sqrt(square + eps), out=inverse[part])
        np.multiply(x[part], inverse[part], out=y[part])
        y[part] *= weight
    return y, inverse


def rms_norm_grad(grad, x, inverse, weight):
    """The gradients of x (rows, width) and weight (width,)."""
    rows, width = x.shape
    weight = or_constant(weight, 1, width, x.dtype)
    grad_x, grad_weight = np.empty(x.shape, x.dtype), np.zeros(width, x.dtype)
    if use_compiled(x):
        kernel, given = compiled_normalization().rms_norm_grad, (np.ascontiguousarray(a) for a in (grad, x))
        given = *given, inverse[:, 0]

        def over(part):
            total = np.zeros(width, x.dtype)
            kernel(*(a[part] for a in given), weight, grad_x[part], total)
            return total

        return grad_x, split_sum(rows, over, thread_rows(width))
    for part in row_blocks(rows, width):
        g, out, normal = grad[part], grad_x[part], x[part] * inverse[part]
        grad_weight += np.einsum("rw,rw->w", g, normal)
        np.multiply(g, weight, out=out)
        normal *= np.einsum("rw,rw->r", out, normal)[:, None] / width
        out -= normal
        out *= inverse[part]
    return grad_x, grad_weight
