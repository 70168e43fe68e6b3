"""Reading and writing elements by their places: shapes and costs."""

import math

import numpy as np

from minidl.kernels import memory_order
from minidl.kernels.meta.record import MetaArray, in_place, result, view

__all__ = [
    "check_indices", "embedding", "embedding_grad", "index", "index_add", "index_assign", "index_grad", "index_put",
]  # fmt: skip


def _indexed(shape, key):
    """The shape that x[key] has, by NumPy's own rules: an array of this shape that takes no memory is asked."""
    key = tuple(np.zeros(k.shape, np.int64) if isinstance(k, MetaArray) else k for k in key)
    return np.broadcast_to(np.empty((), bool), shape)[key].shape


def index(x, key):
    arrays = [k for k in key if isinstance(k, np.ndarray | MetaArray)]
    if not arrays and not any(isinstance(k, bool | np.bool_) for k in key):
        return view("index", x, *memory_order.indexed(x.shape, x.strides, key)[:2])
    shape = _indexed(x.shape, key)
    out = math.prod(shape) * x.dtype.itemsize
    read = out + sum(k.nbytes for k in arrays)
    return result("index", (x,), shape, x.dtype, 0, read=read, kind="copy")


def index_assign(target, key, x):
    np.broadcast_shapes(x.shape, _indexed(target.shape, key))
    in_place("index_assign", x, (x,), 0, kind="copy")


def index_put(x, key, values):
    return result("index_put", (x, values), x.shape, x.dtype, 0, kind="copy")


def index_add(x, key, values):
    return result("index_add", (x, values), x.shape, x.dtype, flops=values.size, kind="reduction")


def index_grad(grad, key, shape):
    return result("index_grad", (grad,), shape, grad.dtype, flops=grad.size, kind="reduction")


def check_indices(name, indices, size):
    """Values are not known here."""


def embedding(weight, indices):
    shape = (*indices.shape, weight.shape[1])
    read = indices.nbytes + math.prod(shape) * weight.dtype.itemsize
    return result("embedding", (weight, indices), shape, weight.dtype, 0, read=read, kind="copy")


def embedding_grad(grad, indices, rows):
    return result(
        "embedding_grad", (grad, indices), (rows, grad.shape[-1]), grad.dtype, flops=grad.size, kind="reduction"
    )
