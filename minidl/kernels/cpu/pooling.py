"""Pooling of images (batch, channels, height, width): inside, channels come last, as in convolution.py."""

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.cpu.blocks import compiled_pooling, use_compiled
from minidl.kernels.cpu.images import channels_first, channels_last, pad

__all__ = ["max_pool2d", "max_pool2d_grad"]


def max_pool2d(x, kernel, stride, padding):
    """x (n, c, height, width) -> the largest of each window, and which element of the window it is (row-major)."""
    out_size = shapes.windows(x.shape[2:], kernel, stride, padding)
    which_dtype = np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32
    x = pad(channels_last(x), padding, -np.inf)
    if use_compiled(x) and which_dtype == np.uint8:
        y = np.empty((x.shape[0], *out_size, x.shape[3]), x.dtype)
        which = np.empty(y.shape, which_dtype)
        compiled_pooling().max_pool2d(x, kernel, stride, y, which)
        return channels_first(y), channels_first(which)
    y, which = None, None
    for k, window in enumerate(_window_elements(x, kernel, stride, out_size)):
        if y is None:
            y, which = window.copy(), np.zeros(window.shape, which_dtype)
        else:
            np.copyto(which, k, where=window > y, casting="unsafe")
            np.maximum(y, window, out=y)
    return channels_first(y), channels_first(which)


def max_pool2d_grad(grad, which, x_shape, kernel, stride, padding):
    """The gradient of the input, of shape `x_shape`: each element of `grad` goes to the largest of its window."""
    n, c, height, width = x_shape
    grad, which = channels_last(grad), channels_last(which)
    (pv, ph), out_size = padding, grad.shape[1:3]
    out = np.zeros((n, height + 2 * pv, width + 2 * ph, c), grad.dtype)
    if use_compiled(out) and which.dtype == np.uint8:
        compiled_pooling().max_pool2d_grad(grad, which, kernel, stride, out)
    else:
        for k, window in enumerate(_window_elements(out, kernel, stride, out_size)):
            window += grad * (which == k)
    return channels_first(out[:, pv : pv + height, ph : ph + width])


def _window_elements(x, kernel, stride, out_size):
    """For each place in a window, row by row, the view (n, out_height, out_width, c) of that element of all windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * (out_size[0] - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (out_size[1] - 1) + 1, stride[1])
            yield x[:, rows, columns]
