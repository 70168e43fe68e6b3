"""Pooling of images (batch, channels, height, width): shapes and costs."""

import math

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.meta.record import MetaArray, result

__all__ = ["max_pool2d", "max_pool2d_grad"]


def max_pool2d(x, kernel, stride, padding):
    shape = (*x.shape[:2], *shapes.windows(x.shape[2:], kernel, stride, padding))
    which = MetaArray(shape, np.uint8 if math.prod(kernel) <= 256 else np.int32)
    y = result("max_pool2d", (x,), shape, x.dtype, math.prod(kernel), also_written=(which,))
    return y, which


def max_pool2d_grad(grad, which, x_shape, kernel, stride, padding):
    return result("max_pool2d_grad", (grad, which), x_shape, grad.dtype, flops=grad.size)
