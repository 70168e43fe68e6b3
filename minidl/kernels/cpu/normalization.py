"""Layer norm and RMS norm: each row of a matrix normalised. A weight or a bias may be None."""

import numpy as np

from minidl.kernels.cpu import fast

__all__ = ["layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"]


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    width = x.shape[1]
    weight, bias = or_constant(weight, 1, width, x.dtype), or_constant(bias, 0, width, x.dtype)
    if fast.use_compiled(x):
        return fast.normalization.layer_norm(x, weight, bias, eps)
    mean = x.mean(axis=1, keepdims=True)  # (rows, 1)
    y = x - mean
    inverse = 1 / np.sqrt(_dot(y, y) / width + eps)  # (rows, 1)
    y *= inverse
    y *= weight
    y += bias
    return y, mean, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (rows, width), weight (width,) and bias (width,)."""
    width = x.shape[1]
    weight = or_constant(weight, 1, width, x.dtype)
    if fast.use_compiled(x):
        return fast.normalization.layer_norm_grad(grad, x, mean, inverse, weight)
    normal = (x - mean) * inverse
    grad_weight, grad_bias = np.einsum("rw,rw->w", grad, normal), grad.sum(axis=0)
    out = grad * weight
    along = _dot(out, normal) / width  # (rows, 1)
    out -= out.mean(axis=1, keepdims=True)
    out -= normal * along
    out *= inverse
    return out, grad_weight, grad_bias


def rms_norm(x, weight, eps):
    """x (rows, width), weight (width,) -> y (rows, width), 1/root mean square (rows, 1)."""
    width = x.shape[1]
    weight = or_constant(weight, 1, width, x.dtype)
    if fast.use_compiled(x):
        return fast.normalization.rms_norm(x, weight, eps)
    inverse = 1 / np.sqrt(_dot(x, x) / width + eps)  # (rows, 1)
    y = x * inverse
    y *= weight
    return y, inverse


def rms_norm_grad(grad, x, inverse, weight):
    """The gradients of x (rows, width) and weight (width,)."""
    width = x.shape[1]
    weight = or_constant(weight, 1, width, x.dtype)
    if fast.use_compiled(x):
        return fast.normalization.rms_norm_grad(grad, x, inverse, weight)
    normal = x * inverse
    grad_weight = np.einsum("rw,rw->w", grad, normal)
    out = grad * weight
    out -= normal * (_dot(out, normal) / width)
    out *= inverse
    return out, grad_weight


def or_constant(parameter, value, width, dtype):
    """A parameter (width,); where it is None, `value` everywhere."""
    return np.full(width, value, dtype) if parameter is None else parameter


def _dot(a, b):
    """Row by row, the sum of a * b: (rows, 1)."""
    return np.einsum("rw,rw->r", a, b)[:, None]
