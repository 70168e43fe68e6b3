"""Normalisation: elements less their mean, over their standard deviation, then times a weight and plus a bias.

Batch and group norm work on channels-last memory (see images.py), where a channel is a column of a matrix: one pass
over memory finds the means and variances, a second one applies them; so too backward. A weight or a bias may be None.
"""

import numpy as np

from minidl.kernels.cpu.blocks import compiled_normalization, row_blocks, use_compiled
from minidl.kernels.cpu.images import channels_first, channels_last

__all__ = [
    "batch_norm", "batch_norm_grad", "batch_norm_sums", "channel_moments", "group_norm", "group_norm_grad",
    "layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad",
]  # fmt: skip


def _or_constant(parameter, value, width, dtype):
    return np.full(width, value, dtype) if parameter is None else parameter


# Layer norm and RMS norm: one pass over rows


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    rows, width = x.shape
    weight, bias = _or_constant(weight, 1, width, x.dtype), _or_constant(bias, 0, width, x.dtype)
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
    weight = _or_constant(weight, 1, width, x.dtype)
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


def rms_norm(x, weight, eps):
    """x (rows, width), weight (width,) -> y (rows, width), 1/root mean square (rows, 1)."""
    rows, width = x.shape
    weight = _or_constant(weight, 1, width, x.dtype)
    y, inverse = np.empty(x.shape, x.dtype), np.empty((rows, 1), x.dtype)
    if use_compiled(x):
        compiled_normalization().rms_norm(np.ascontiguousarray(x), weight, np.float32(eps), y, inverse[:, 0])
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
    weight = _or_constant(weight, 1, width, x.dtype)
    grad_x, grad_weight = np.empty(x.shape, x.dtype), np.zeros(width, x.dtype)
    if use_compiled(x):
        grad, x = np.ascontiguousarray(grad), np.ascontiguousarray(x)
        compiled_normalization().rms_norm_grad(grad, x, inverse[:, 0], weight, grad_x, grad_weight)
        return grad_x, grad_weight
    for part in row_blocks(rows, width):
        g, out, normal = grad[part], grad_x[part], x[part] * inverse[part]
        grad_weight += np.einsum("rw,rw->w", g, normal)
        np.multiply(g, weight, out=out)
        normal *= np.einsum("rw,rw->r", out, normal)[:, None] / width
        out -= normal
        out *= inverse[part]
    return grad_x, grad_weight


# Batch norm: two passes over columns


def _columns(x):
    """(n, channels, ...) -> (n * ..., channels), a view if memory is channels-last."""
    return channels_last(x).reshape(x.size // x.shape[1] if x.size else 0, x.shape[1])


def _images(columns, shape):
    """(n * ..., channels) -> a view of `shape`, (n, channels, ...)."""
    return channels_first(columns.reshape(shape[0], *shape[2:], shape[1]))


def channel_moments(x):
    """The mean and the variance of each channel of x (n, channels, ...) over all else; zeros if there is nothing."""
    columns = _columns(x)
    if not len(columns):
        return np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    if use_compiled(x):
        mean, variance = np.empty(x.shape[1]), np.empty(x.shape[1])
        compiled_normalization().column_moments(columns, mean, variance)
    else:
        mean = columns.mean(axis=0, dtype=np.float64)
        apart = columns - mean.astype(x.dtype)
        variance = np.einsum("rc,rc->c", apart, apart) / len(columns)
    return mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm(x, mean, inverse, weight, bias):
    """(x - mean) * inverse * weight + bias: x (n, channels, ...), the others (channels,)."""
    columns = _columns(x)
    scale = inverse if weight is None else inverse * weight
    bias = _or_constant(bias, 0, len(mean), x.dtype)
    y = np.empty(columns.shape, x.dtype)
    if use_compiled(x):
        compiled_normalization().scale_columns(columns, mean, scale, bias, y)
    else:
        np.subtract(columns, mean, out=y)
        y *= scale
        y += bias
    return _images(y, x.shape)


def batch_norm_sums(grad, x, mean, inverse):
    """Of each channel, the sum of grad and of grad * (x - mean) * inverse: the gradients of bias and weight."""
    grad, columns = _columns(grad), _columns(x)
    if use_compiled(x):
        total, along = np.empty(len(mean)), np.empty(len(mean))
        compiled_normalization().column_sums(grad, columns, mean, total, along)
    else:
        total = grad.sum(axis=0)
        along = np.einsum("rc,rc->c", grad, columns - mean)
    return total.astype(x.dtype, copy=False), (along * inverse).astype(x.dtype, copy=False)


def batch_norm_grad(grad, x, mean, inverse, weight, total, along, count):
    """The gradient of x, of which every channel has `count` elements; total and along are those of batch_norm_sums."""
    shape, grad, columns = x.shape, _columns(grad), _columns(x)
    scale = inverse if weight is None else inverse * weight
    slope, offset = scale * inverse * along / -count, scale * total / -count
    out = np.empty(columns.shape, x.dtype)
    if use_compiled(x):
        compiled_normalization().combine_columns(grad, columns, mean, scale, slope, offset, out)
    else:
        np.subtract(columns, mean, out=out)
        out *= slope
        out += offset
        out += grad * scale
    return _images(out, shape)


# Group norm: as batch norm, image by image


def group_norm(x, groups, weight, bias, eps):
    """x (n, channels, ...), weight and bias (channels,) -> y, and mean and 1/standard deviation (n, groups)."""
    n, channels = x.shape[:2]
    weight, bias = _or_constant(weight, 1, channels, x.dtype), _or_constant(bias, 0, channels, x.dtype)
    mean, inverse = np.zeros((n, groups), x.dtype), np.zeros((n, groups), x.dtype)
    images = _positions(x)
    y = np.empty(images.shape, x.dtype)
    if use_compiled(x):
        compiled_normalization().group_norm(images, weight, bias, eps, y, mean, inverse)
    elif x.size:
        grouped, out = _grouped(images, groups), _grouped(y, groups)
        grouped.mean(axis=(1, 3), out=mean)
        np.subtract(grouped, mean[:, None, :, None], out=out)
        variance = np.einsum("npgs,npgs->ng", out, out) / (images.shape[1] * (channels // groups))
        np.divide(1, np.sqrt(variance + eps), out=inverse)
        out *= inverse[:, None, :, None]
        y *= weight
        y += bias
    return _images(y, x.shape), mean, inverse


def group_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (n, channels, ...), weight (channels,) and bias (channels,)."""
    shape, (channels, groups) = x.shape, (x.shape[1], mean.shape[1])
    weight = _or_constant(weight, 1, channels, x.dtype)
    grad, images = _positions(grad), _positions(x)
    grad_x = np.empty(images.shape, x.dtype)
    if use_compiled(x):
        grad_weight, grad_bias = np.zeros(channels), np.zeros(channels)
        outputs = grad_x, grad_weight, grad_bias
        compiled_normalization().group_norm_grad(grad, images, mean, inverse, weight, *outputs)
        return _images(grad_x, shape), grad_weight.astype(x.dtype), grad_bias.astype(x.dtype)
    normal = np.empty(images.shape, x.dtype)
    grouped, out, s = _grouped(normal, groups), _grouped(grad_x, groups), inverse[:, None, :, None]
    np.subtract(_grouped(images, groups), mean[:, None, :, None], out=grouped)
    grouped *= s
    grad_weight, grad_bias = np.einsum("npc,npc->c", grad, normal), grad.sum(axis=(0, 1))
    if x.size:
        np.multiply(grad, weight, out=grad_x)
        along = np.einsum("npgs,npgs->ng", out, grouped) / (images.shape[1] * (channels // groups))
        out -= out.mean(axis=(1, 3), keepdims=True)
        grouped *= along[:, None, :, None]
        out -= grouped
        out *= s
    return _images(grad_x, shape), grad_weight, grad_bias


def _positions(x):
    """(n, channels, ...) -> (n, positions, channels), a view if memory is channels-last."""
    return channels_last(x).reshape(x.shape[0], int(np.prod(x.shape[2:])), x.shape[1])


def _grouped(images, groups):
    n, positions, channels = images.shape
    return images.reshape(n, positions, groups, channels // groups)
