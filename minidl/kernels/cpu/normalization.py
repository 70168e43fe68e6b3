"""Normalisation: the mean and the variance of some dimensions made 0 and 1."""

import numpy as np

from minidl.kernels.cpu.blocks import compiled_normalization, row_blocks, use_compiled

__all__ = ["layer_norm", "layer_norm_grad"]


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    rows, width = x.shape
    y = np.empty(x.shape, x.dtype)
    mean, inverse = np.empty((rows, 1), x.dtype), np.empty((rows, 1), x.dtype)
    if use_compiled(x):
        x = np.ascontiguousarray(x)
        compiled_normalization().layer_norm(x, weight, bias, np.float32(eps), y, mean[:, 0], inverse[:, 0])
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
    grad_x = np.empty(x.shape, x.dtype)
    grad_weight, grad_bias = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    if use_compiled(x):
        grad, x = np.ascontiguousarray(grad), np.ascontiguousarray(x)
        outputs = grad_x, grad_weight, grad_bias
        compiled_normalization().layer_norm_grad(grad, x, mean[:, 0], inverse[:, 0], weight, *outputs)
        return outputs
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
