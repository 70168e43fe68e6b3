"""Pooling of images (batch, channels, height, width): shapes and costs."""

import math

from minidl.kernels.memory_order import channels_last
from minidl.kernels.meta.record import MetaArray, result
from minidl.kernels.pooling_windows import places_dtype

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad", "max_pool2d_take"]


def _images(name, inputs, shape, flops, also_written=()):
    return result(name, inputs, shape, inputs[0].dtype, flops=flops, also_written=also_written,
                  strides=channels_last(shape), kind="reduction")  # fmt: skip


def _pooled(x, rows, columns):
    return (*x.shape[:2], len(rows), len(columns))


def _whole(grad, rows, columns):
    return (*grad.shape[:2], rows.size, columns.size)


def max_pool2d(x, rows, columns):
    shape, elements = _pooled(x, rows, columns), rows.length * columns.length
    which = MetaArray(shape, places_dtype(rows, columns), strides=channels_last(shape))
    return _images("max_pool2d", (x,), shape, elements * which.size, also_written=(which,)), which


def max_pool2d_grad(grad, which, rows, columns):
    return _images("max_pool2d_grad", (grad, which), _whole(grad, rows, columns), grad.size)


def max_pool2d_take(x, which, rows, columns):
    return _images("max_pool2d_take", (x, which), which.shape, 0)


def avg_pool2d(x, rows, columns):
    shape, elements = _pooled(x, rows, columns), rows.length * columns.length
    return _images("avg_pool2d", (x,), shape, (elements + 1) * math.prod(shape))


def avg_pool2d_grad(grad, rows, columns):
    flops = grad.size * (rows.length * columns.length + 1)
    return _images("avg_pool2d_grad", (grad,), _whole(grad, rows, columns), flops)
