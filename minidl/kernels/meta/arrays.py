"""Making, moving and reshaping arrays: shapes and costs."""

from builtins import sum as total

import numpy as np

from minidl.kernels import memory_order
from minidl.kernels.meta.record import MetaArray, elementwise_strides, in_place, result, view

__all__ = [
    "accumulate", "array", "assign", "broadcast_to", "cast", "concatenate", "copy", "drawn", "empty", "extent",
    "fill", "flip",
    "from_device", "from_scalar", "full", "is_contiguous", "pad", "permute", "reshape", "roll", "slice_last",
    "swap_last", "to_host", "to_numpy",
]  # fmt: skip


# Making and moving


def array(value, dtype):
    return MetaArray(np.shape(value), dtype)


def drawn(draw, shape, dtype):
    return MetaArray(tuple(shape), dtype)


def full(shape, value, dtype):
    return result("full", (), shape, dtype, 0, kind="copy")


def empty(shape, dtype):
    return MetaArray(tuple(shape), dtype)


def copy(x):
    return result("copy", (x,), x.shape, x.dtype, 0, kind="copy")


def cast(x, dtype):
    return result("cast", (x,), x.shape, dtype, 0, strides=elementwise_strides((x,), x.shape), kind="copy")


def assign(target, x):
    in_place("assign", target, (x,), 0, kind="copy")


def fill(target, number):
    in_place("fill", target, (), 0)


def accumulate(target, x):
    in_place("accumulate", target, (target, x), target.size)


def is_contiguous(x):
    return x.contiguous


def to_numpy(x):
    raise ValueError("a tensor on meta has a shape and no values: build it on cpu to read them")


def to_host(x, beside):
    return to_numpy(x)


def from_device(x, kernels, beside):
    return MetaArray(x.shape, x.dtype)


def from_scalar(x):
    return x


def extent(x):
    return x.storage, 0, 1


# Shapes


def reshape(x, shape):
    shape, strides = memory_order.whole_shape(x, shape), None
    if not x.contiguous:
        strides = memory_order.reshaped(x.shape, x.strides, shape)
        if strides is None:
            x = copy(x)
    return view("reshape", x, shape, strides)


def permute(x, dims):
    return view("permute", x, (x.shape[d] for d in dims), tuple(x.strides[d] for d in dims))


def swap_last(x):
    (*lead, rows, columns), (*steps, row, column) = x.shape, x.strides
    return view("swap_last", x, (*lead, columns, rows), (*steps, column, row))


def broadcast_to(x, shape):
    added = len(shape) - x.ndim
    steps = (0 if old != new else step for old, new, step in zip(x.shape, shape[added:], x.strides, strict=True))
    return view("broadcast_to", x, shape, (*(0,) * added, *steps))


def concatenate(arrays, dim):
    shape = list(arrays[0].shape)
    shape[dim] = total(x.shape[dim] for x in arrays)
    contiguous = all(x.contiguous for x in arrays)
    strides = (
        None if contiguous else memory_order.elementwise([(tuple(shape), x.strides) for x in arrays], tuple(shape))
    )
    return result("concatenate", arrays, shape, arrays[0].dtype, 0, strides=strides, kind="copy")


def slice_last(x, start, length):
    return view("slice_last", x, (*x.shape[:-1], length), x.strides)


def pad(x, widths, value):
    shape = (n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    return result("pad", (x,), shape, x.dtype, 0, kind="copy")


def flip(x, dims):
    return result("flip", (x,), x.shape, x.dtype, 0, kind="copy")


def roll(x, shifts, dims):
    return result("roll", (x,), x.shape, x.dtype, 0, kind="copy")
