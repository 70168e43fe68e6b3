"""Convolution as it is defined, in compiled loops that copy no windows: close to the peak of the processor.

It takes 16 channels of the result at a time, in float32, and images in either order of memory. For all else
convolution.py copies windows and leaves the loops to the BLAS (`algorithms.convolution` says when).
"""

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.algorithms import is_depthwise
from minidl.kernels.cpu.fast import direct_loops as loops
from minidl.kernels.cpu.fast.threads import split, split_sum
from minidl.kernels.cpu.images import channels_first, channels_last, pad


def _blocks(weight_shape, groups):
    """The channels of the result as the compiled loops take them: (blocks, channels in each)."""
    o = weight_shape[0]
    return (1, o) if is_depthwise(weight_shape, groups) else (o // 16, 16)


class _Windows:
    """Padded images as flat memory, and where their windows lie in it.

    steps: from one image, window below, window beside and group of channels to the next. offsets: of a window's
    elements (kernel_height * kernel_width * c / groups) from its first.
    """

    def __init__(self, x, kernel, stride, padding, dilation, groups):
        n, c, height, width = x.shape
        if x.flags.c_contiguous and groups < c:
            padded = pad(x.reshape(n * c, height, width, 1), padding)
            self.memory = padded = padded.reshape(n, c, *padded.shape[1:3])
        else:  # as depthwise convolutions need it
            self.memory = pad(channels_last(x), padding)
            padded = channels_first(self.memory)
        image, channel, row, column = (step // x.itemsize for step in padded.strides)
        a, b, k = np.ogrid[: kernel[0], : kernel[1], : c // groups]
        self.offsets = (a * dilation[0] * row + b * dilation[1] * column + k * channel).ravel()
        self.steps = (image, stride[0] * row, stride[1] * column, c // groups * channel)


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """x (n, c, height, width), weight (o, c / groups, kh, kw) -> (n, out_height, out_width, o)."""
    o, _, *kernel = weight.shape
    out_size = shapes.windows(x.shape[2:], kernel, stride, padding, dilation)
    windows = _Windows(x, kernel, stride, padding, dilation, groups)
    depthwise = is_depthwise(weight.shape, groups)
    weight = weight.reshape(*_blocks(weight.shape, groups), *weight.shape[1:]).transpose(0, 3, 4, 2, 1)
    weight = np.ascontiguousarray(weight)  # (blocks, kh, kw, c / groups, channels)
    bias = np.zeros(o, x.dtype) if bias is None else np.ascontiguousarray(bias)
    y = np.empty((len(x), *out_size, o), x.dtype)

    def convolve(part):
        arguments = windows.memory[part], windows.steps, windows.offsets, weight, bias, y[part]
        if depthwise:
            loops.convolve_depthwise(*arguments)
        else:
            loops.convolve(*arguments, o // groups)

    split(len(x), convolve)
    return y


def conv2d_grad_weight(grad, x, weight_shape, stride, padding, dilation, groups):
    """grad (n, out_height, out_width, o), x (n, c, height, width) -> the gradient of the weight, of `weight_shape`."""
    o, c, *kernel = weight_shape
    windows = _Windows(x, kernel, stride, padding, dilation, groups)
    count = len(windows.offsets)
    offsets = np.append(
        windows.offsets, np.repeat(windows.offsets[-1:], -count % loops.TILE)
    )  # as many as are summed at once

    blocks, channels = _blocks(weight_shape, groups)

    def over(part):
        total = np.zeros((blocks, len(offsets), channels), x.dtype)
        arguments = windows.memory[part], windows.steps, offsets, grad[part], total
        if is_depthwise(weight_shape, groups):
            loops.add_depthwise_gradient(*arguments)
        else:
            loops.add_weight_gradient(*arguments, o // groups)
        return total

    total = split_sum(len(x), over)[:, :count].reshape(blocks, *kernel, c, channels)
    return np.ascontiguousarray(total.transpose(0, 4, 3, 1, 2)).reshape(weight_shape)
