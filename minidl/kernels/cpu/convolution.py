"""Convolution of images (batch, channels, height, width).

Inside, channels come last: the windows of a few images are copied into the rows of a matrix ("im2col"; Chellapilla,
Puri and Simard 2006) that stays in the cache, and one matrix product does the rest. The results keep that order of
memory behind the usual shape, so that the next convolution need not turn its input: they are not contiguous.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.kernels import shapes
from minidl.kernels.cpu.images import channels_first, channels_last, pad

__all__ = ["channel_sums", "conv2d", "conv2d_grad_input", "conv2d_grad_weight"]

BLOCK = 1 << 18  # elements of the matrix of windows made at a time: 1 MiB of float32


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
    x, matrix = channels_last(x), channels_last(weight).reshape(len(weight), -1)  # (o, kh*kw*c)
    y = np.empty((n, *out_size, len(weight)), x.dtype)
    for part in _image_blocks(n, out_size[0] * out_size[1] * matrix.shape[1]):
        windows = _windows(pad(x[part], padding), kernel, stride, out_size)
        np.matmul(windows, matrix.T, out=y[part].reshape(len(windows), -1))
    if bias is not None:
        y += bias
    return channels_first(y)


def conv2d_grad_weight(grad, x, weight_shape, stride, padding):
    """grad (n, o, out_height, out_width), x (n, c, height, width) -> the gradient of the weight."""
    o, c, *kernel = weight_shape
    x, grad = channels_last(x), channels_last(grad)
    out_size = grad.shape[1:3]
    total = np.zeros((o, kernel[0] * kernel[1] * c), x.dtype)
    for part in _image_blocks(len(x), out_size[0] * out_size[1] * total.shape[1]):
        windows = _windows(pad(x[part], padding), kernel, stride, out_size)
        total += grad[part].reshape(len(windows), o).T @ windows
    return np.ascontiguousarray(channels_first(total.reshape(o, *kernel, c)))


def conv2d_grad_input(grad, weight, x_shape, stride, padding):
    """grad (n, o, out_height, out_width), weight (o, c, kh, kw) -> the gradient of the input, of shape `x_shape`."""
    n, c, height, width = x_shape
    o, _, kh, kw = weight.shape
    if stride == (1, 1) and padding[0] < kh and padding[1] < kw:  # itself a convolution, with the kernel turned round
        turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        return conv2d(grad, turned, None, stride, (kh - 1 - padding[0], kw - 1 - padding[1]))
    grad, matrix = channels_last(grad), channels_last(weight).reshape(o, -1)  # (o, kh*kw*c)
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
    return channels_first(out[:, pv : pv + height, ph : ph + width])


def channel_sums(x):
    """x (n, c, height, width) -> (c,): the sum over all but the channels.

    As a product, as NumPy sums slowly but along long rows.
    """
    if x.flags.c_contiguous and x.shape[2] * x.shape[3] >= 64:
        return x.sum(axis=(0, 2, 3))
    rows = channels_last(x).reshape(-1, x.shape[1])
    return np.ones(len(rows), x.dtype) @ rows
