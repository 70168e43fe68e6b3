"""Convolution of images (batch, channels, height, width): shapes and costs."""

import math
from functools import partial

from minidl.kernels import algorithms, shapes
from minidl.kernels.memory_order import channels_last
from minidl.kernels.meta.record import result

__all__ = ["channel_sums", "conv2d", "conv2d_grad_input", "conv2d_grad_weight"]

_convolved = partial(result, kind="convolution")


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    out_size = shapes.windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    shape = (x.shape[0], weight.shape[0], *out_size)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    flops = math.prod(shape) * (2 * math.prod(weight.shape[1:]) + (bias is not None))
    options = stride, padding, dilation, groups
    algorithm = algorithms.convolution(x.shape, x.dtype, weight.shape, out_size, stride, dilation, groups)
    return _convolved(
        "conv2d", inputs, shape, x.dtype, flops=flops, strides=channels_last(shape), options=options,
        algorithm=algorithm,
    )  # fmt: skip


def conv2d_grad_weight(grad, x, weight_shape, stride, padding, dilation, groups):
    flops, options = 2 * grad.size * math.prod(weight_shape[1:]), (stride, padding, dilation, groups)
    algorithm = algorithms.convolution(x.shape, x.dtype, weight_shape, grad.shape[2:], stride, dilation, groups)
    return _convolved(
        "conv2d_grad_weight", (grad, x), weight_shape, x.dtype, flops=flops, options=options, algorithm=algorithm
    )


def conv2d_grad_input(grad, weight, x_shape, stride, padding, dilation, groups):
    flops, options = 2 * grad.size * math.prod(weight.shape[1:]), (stride, padding, dilation, groups)
    algorithm = algorithms.convolution_grad_input(grad.shape, grad.dtype, weight.shape, x_shape, *options)
    return _convolved(
        "conv2d_grad_input", (grad, weight), x_shape, grad.dtype, flops=flops, strides=channels_last(x_shape),
        options=options, algorithm=algorithm,
    )  # fmt: skip


def channel_sums(x):
    return result("channel_sums", (x,), x.shape[1:2], x.dtype, flops=x.size, kind="reduction")
