"""Convolution and pooling of images (batch, channels, height, width).

Inside, channels come last: the windows of a few images are copied into the rows of a matrix ("im2col"; Chellapilla,
Puri and Simard 2006) that stays in the cache, and one matrix product does the rest. The results keep that order of
memory behind the usual shape, so that the next convolution need not turn its input: they are not contiguous.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.kernels import shapes
from minidl.kernels.cpu.blocks import compiled, use_compiled

__all__ = [
    "channel_sums", "conv2d", "conv2d_grad_input", "conv2d_grad_weight", "max_pool2d", "max_pool2d_grad",
]  # fmt: skip

BLOCK = 1 << 18  # elements of the matrix of windows made at a time: 1 MiB of float32


def _channels_last(x):
    """(batch, channels, height, width) -> contiguous (batch, height, width, channels)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _channels_first(x):
    """(batch, height, width, channels) -> a view (batch, channels, height, width)."""
    return x.transpose(0, 3, 1, 2)


def _pad(x, padding, value=0):
    """Surround images (batch, height, width, channels) by (vertical, horizontal) rows and columns of `value`."""
    vertical, horizontal = padding
    if vertical == horizontal == 0:
        return x
    n, h, w, c = x.shape
    out = np.full((n, h + 2 * vertical, w + 2 * horizontal, c), value, x.dtype)
    out[:, vertical : vertical + h, horizontal : horizontal + w] = x
    return out


def _windows(x, kernel, stride, out_size):
    """Padded (n, height, width, c) -> the matrix (n * out_height * out_width, kernel_height * kernel_width * c)."""
    n, _, _, c = x.shape
    image, row, column, channel = x.strides
    shape = (n, *out_size, *kernel, c)
    view = as_strided(x, shape, (image, row * stride[0], column * stride[1], row, column, channel), writeable=False)
    return view.reshape(n * out_size[0] * out_size[1], kernel[0] * kernel[1] * c)


def _image_blocks(images, elements_per_image):
    step = max(1, BLOCK // max(1, elements_per_image))
    return (slice(start, min(start + step, images)) for start in range(0, images, step))


def conv2d(x, weight, bias, stride, padding):
    """x (n, c, height, width), weight (o, c, kh, kw), bias (o,) or None -> (n, o, out_height, out_width)."""
    n, kernel = x.shape[0], weight.shape[2:]
    out_size = shapes.windows(x.shape[2:], kernel, stride, padding)
    x, matrix = _channels_last(x), _channels_last(weight).reshape(len(weight), -1)  # (o, kh*kw*c)
    y = np.empty((n, *out_size, len(weight)), x.dtype)
    for part in _image_blocks(n, out_size[0] * out_size[1] * matrix.shape[1]):
        windows = _windows(_pad(x[part], padding), kernel, stride, out_size)
        np.matmul(windows, matrix.T, out=y[part].reshape(len(windows), -1))
    if bias is not None:
        y += bias
    return _channels_first(y)


def conv2d_grad_weight(grad, x, weight_shape, stride, padding):
    """grad (n, o, out_height, out_width), x (n, c, height, width) -> the gradient of the weight."""
    o, c, *kernel = weight_shape
    x, grad = _channels_last(x), _channels_last(grad)
    out_size = grad.shape[1:3]
    total = np.zeros((o, kernel[0] * kernel[1] * c), x.dtype)
    for part in _image_blocks(len(x), out_size[0] * out_size[1] * total.shape[1]):
        windows = _windows(_pad(x[part], padding), kernel, stride, out_size)
        total += grad[part].reshape(len(windows), o).T @ windows
    return np.ascontiguousarray(_channels_first(total.reshape(o, *kernel, c)))


def conv2d_grad_input(grad, weight, x_shape, stride, padding):
    """grad (n, o, out_height, out_width), weight (o, c, kh, kw) -> the gradient of the input, of shape `x_shape`."""
    n, c, height, width = x_shape
    o, _, kh, kw = weight.shape
    if stride == (1, 1) and padding[0] < kh and padding[1] < kw:  # itself a convolution, with the kernel turned round
        turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        return conv2d(grad, turned, None, stride, (kh - 1 - padding[0], kw - 1 - padding[1]))
    grad, matrix = _channels_last(grad), _channels_last(weight).reshape(o, -1)  # (o, kh*kw*c)
    _, out_height, out_width, _ = grad.shape
    (sv, sh), (pv, ph) = stride, padding
    out = np.zeros((n, height + 2 * pv, width + 2 * ph, c), grad.dtype)
    for part in _image_blocks(n, out_height * out_width * matrix.shape[1]):
        windows = grad[part].reshape(-1, o) @ matrix
        windows = windows.reshape(-1, out_height, out_width, kh, kw, c)
        for i in range(kh):
            for j in range(kw):
                target = out[part, i : i + sv * out_height : sv, j : j + sh * out_width : sh]
                target += windows[:, :, :, i, j]
    return _channels_first(out[:, pv : pv + height, ph : ph + width])


def channel_sums(x):
    """x (n, c, height, width) -> (c,): the sum over all but the channels.

    As a product, as NumPy sums slowly but along long rows.
    """
    if x.flags.c_contiguous and x.shape[2] * x.shape[3] >= 64:
        return x.sum(axis=(0, 2, 3))
    rows = _channels_last(x).reshape(-1, x.shape[1])
    return np.ones(len(rows), x.dtype) @ rows


def max_pool2d(x, kernel, stride, padding):
    """x (n, c, height, width) -> the largest of each window, and which element of the window it is (row-major)."""
    out_size = shapes.windows(x.shape[2:], kernel, stride, padding)
    which_dtype = np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32
    x = _pad(_channels_last(x), padding, -np.inf)
    if use_compiled(x) and which_dtype == np.uint8:
        y = np.empty((x.shape[0], *out_size, x.shape[3]), x.dtype)
        which = np.empty(y.shape, which_dtype)
        compiled().max_pool2d(x, kernel, stride, y, which)
        return _channels_first(y), _channels_first(which)
    y, which = None, None
    for k, window in enumerate(_window_elements(x, kernel, stride, out_size)):
        if y is None:
            y, which = window.copy(), np.zeros(window.shape, which_dtype)
        else:
            np.copyto(which, k, where=window > y, casting="unsafe")
            np.maximum(y, window, out=y)
    return _channels_first(y), _channels_first(which)


def max_pool2d_grad(grad, which, x_shape, kernel, stride, padding):
    """The gradient of the input, of shape `x_shape`: each element of `grad` goes to the largest of its window."""
    n, c, height, width = x_shape
    grad, which = _channels_last(grad), _channels_last(which)
    (pv, ph), out_size = padding, grad.shape[1:3]
    out = np.zeros((n, height + 2 * pv, width + 2 * ph, c), grad.dtype)
    if use_compiled(out) and which.dtype == np.uint8:
        compiled().max_pool2d_grad(grad, which, kernel, stride, out)
    else:
        for k, window in enumerate(_window_elements(out, kernel, stride, out_size)):
            window += grad * (which == k)
    return _channels_first(out[:, pv : pv + height, ph : ph + width])


def _window_elements(x, kernel, stride, out_size):
    """For each place in a window, row by row, the view (n, out_height, out_width, c) of that element of all windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * (out_size[0] - 1) + 1, stride[0])
            columns = slice(j, j + stride[1] * (out_size[1] - 1) + 1, stride[1])
            yield x[:, rows, columns]
