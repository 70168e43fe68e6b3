"""Pooling of images (batch, channels, height, width): shapes and costs."""

import numpy as np

from minidl.kernels.meta.record import MetaArray, result

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad", "max_pool2d_take"]


def _pooled(x, rows, columns):
    return (*x.shape[:2], len(rows), len(columns))


def _images(grad, rows, columns):
    return (*grad.shape[:2], rows.size, columns.size)


def max_pool2d(x, rows, columns):
    shape, elements = _pooled(x, rows, columns), rows.length * columns.length
    which = MetaArray(shape, np.uint8 if elements <= 256 else np.int32)
    return result("max_pool2d", (x,), shape, x.dtype, elements, also_written=(which,)), which


def max_pool2d_grad(grad, which, rows, columns):
    return result("max_pool2d_grad", (grad, which), _images(grad, rows, columns), grad.dtype, flops=grad.size)


def max_pool2d_take(x, which, rows, columns):
    return result("max_pool2d_take", (x, which), which.shape, x.dtype, 0)


def avg_pool2d(x, rows, columns):
    elements = rows.length * columns.length
    return result("avg_pool2d", (x,), _pooled(x, rows, columns), x.dtype, elements + 1)


def avg_pool2d_grad(grad, rows, columns):
    flops = grad.size * (rows.length * columns.length + 1)
    return result("avg_pool2d_grad", (grad,), _images(grad, rows, columns), grad.dtype, flops=flops)
