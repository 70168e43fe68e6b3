"""Convolution of images (batch, channels, height, width): over windows, or as `algorithms` chooses a faster way.

Inside, channels come last: the windows of a few images are copied into the rows of a matrix ("im2col"; Chellapilla,
Puri and Simard 2006) that stays in the cache, and one matrix product does the rest. The results keep that order of
memory behind the usual shape, so that the next convolution need not turn its input: they are not contiguous.

A weight is (o, c / groups, kh, kw); stride, padding and dilation are (vertical, horizontal).
"""

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.kernels import algorithms, shapes
from minidl.kernels.cpu import fast
from minidl.kernels.cpu.fast.cache_blocks import over_images, sum_over_images
from minidl.kernels.cpu.images import channels_first, channels_last, pad

__all__ = ["channel_sums", "conv2d", "conv2d_grad_input", "conv2d_grad_weight"]


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """x (n, c, height, width), weight (o, c / groups, kh, kw), bias (o,) or None -> (n, o, out_height, out_width)."""
    (n, _, *size), (o, c, *kernel) = x.shape, weight.shape
    out_size = shapes.windows(size, kernel, stride, padding, dilation)
    algorithm = algorithms.convolution(x.shape, x.dtype, weight.shape, out_size, stride, dilation, groups)
    if algorithm == "winograd":
        return channels_first(fast.winograd.conv2d(channels_last(x), weight, bias, padding))
    if algorithm == "direct":
        return channels_first(fast.direct.conv2d(x, weight, bias, stride, padding, dilation, groups))
    x, matrices = channels_last(x), _matrices(weight, groups).swapaxes(1, 2)
    y = np.empty((n, *out_size, o), x.dtype)

    def convolve(part):
        windows = _windows(pad(x[part], padding), kernel, stride, dilation, out_size, groups)
        np.matmul(windows, matrices, out=_by_group(y[part], groups))
        if bias is not None:
            y[part] += bias

    over_images(n, math.prod((*out_size, *kernel, c, groups)), convolve)
    return channels_first(y)


def conv2d_grad_weight(grad, x, weight_shape, stride, padding, dilation, groups):
    """grad (n, o, out_height, out_width), x (n, c, height, width) -> the gradient of the weight, contiguous."""
    (o, c, *kernel), out_size = weight_shape, grad.shape[2:]
    algorithm = algorithms.convolution(x.shape, x.dtype, weight_shape, out_size, stride, dilation, groups)
    if algorithm == "winograd":
        return fast.winograd.conv2d_grad_weight(channels_last(grad), channels_last(x), padding)
    if algorithm == "direct":
        return fast.direct.conv2d_grad_weight(channels_last(grad), x, weight_shape, stride, padding, dilation, groups)
    x, grad = channels_last(x), channels_last(grad)

    def gradient(part):
        windows = _windows(pad(x[part], padding), kernel, stride, dilation, out_size, groups)
        return _by_group(grad[part], groups).swapaxes(1, 2) @ windows  # (groups, o / groups, kh * kw * c / groups)

    total = sum_over_images(len(x), math.prod((*out_size, *kernel, c, groups)), gradient)
    return np.ascontiguousarray(channels_first(total.reshape(o, *kernel, c)))


def conv2d_grad_input(grad, weight, x_shape, stride, padding, dilation, groups):
    """grad (n, o, out_height, out_width), weight (o, c / groups, kh, kw) -> the gradient of the input, of `x_shape`."""
    (n, channels, height, width), (o, c, kh, kw) = x_shape, weight.shape
    (pv, ph), (dv, dh) = padding, dilation
    if turned := algorithms.turned_convolution(weight.shape, x_shape, stride, padding, dilation, groups):
        size, turned_shape, around = turned
        weight = weight[:, :, ::-1, ::-1].reshape(groups, o // groups, c, kh, kw)
        weight = weight.swapaxes(1, 2).reshape(turned_shape)
        return conv2d(_spread(grad, stride, size), weight, None, (1, 1), around, dilation, groups)
    grad, matrices = channels_last(grad), _matrices(weight, groups)
    _, out_height, out_width, _ = grad.shape
    out = np.zeros((n, height + 2 * pv, width + 2 * ph, groups, c), grad.dtype)

    def spread(part):
        windows = _by_group(grad[part], groups) @ matrices
        windows = windows.reshape(groups, -1, out_height, out_width, kh, kw, c)
        for i in range(kh):
            for j in range(kw):
                rows, columns = _places(i * dv, stride[0], out_height), _places(j * dh, stride[1], out_width)
                out[part, rows, columns] += windows[:, :, :, :, i, j].transpose(1, 2, 3, 0, 4)

    over_images(n, out_height * out_width * kh * kw * channels, spread)
    out = out.reshape(n, height + 2 * pv, width + 2 * ph, channels)
    return channels_first(out[:, pv : pv + height, ph : ph + width])


def channel_sums(x):
    """x (n, c, height, width) -> (c,): the sum over all but the channels.

    As a product, as NumPy sums slowly but along long rows.
    """
    if x.flags.c_contiguous and x.shape[2] * x.shape[3] >= 64:
        return x.sum(axis=(0, 2, 3))
    rows = channels_last(x).reshape(-1, x.shape[1])
    return np.ones(len(rows), x.dtype) @ rows


def _windows(x, kernel, stride, dilation, out_size, groups):
    """Padded (n, height, width, c) -> a matrix (n * out_height * out_width, kh * kw * c / groups) for each group."""
    n, _, _, channels = x.shape
    image, row, column, channel = x.strides
    c = channels // groups
    shape = (groups, n, *out_size, *kernel, c)
    steps = (row * stride[0], column * stride[1], row * dilation[0], column * dilation[1])
    view = as_strided(x, shape, (channel * c, image, *steps, channel), writeable=False)
    return view.reshape(groups, n * out_size[0] * out_size[1], kernel[0] * kernel[1] * c)


def _matrices(weight, groups):
    """(o, c / groups, kh, kw) -> (groups, o / groups, kh * kw * c / groups), the weight of a window in a row."""
    return channels_last(weight).reshape(groups, len(weight) // groups, math.prod(weight.shape[1:]))


def _by_group(x, groups):
    """(..., c) -> a view (groups, rows, c / groups) of contiguous x."""
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _spread(x, stride, size):
    """Images (n, c, height, width) with zeros between their elements, which lie `stride` apart, as images of `size`."""
    if stride == (1, 1):
        return x
    out = np.zeros((len(x), *size, x.shape[1]), x.dtype)
    out[:, _places(0, stride[0], x.shape[2]), _places(0, stride[1], x.shape[3])] = x.transpose(0, 2, 3, 1)
    return channels_first(out)


def _places(first, step, count):
    """The slice that takes `count` places, `step` apart, from `first` on."""
    return slice(first, first + step * (count - 1) + 1, step)
