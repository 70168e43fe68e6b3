"""Making, moving and reshaping arrays: shapes and costs."""

import math
from builtins import sum as total

import numpy as np

from minidl.kernels.meta.record import MetaArray, in_place, result, view

__all__ = [
    "accumulate", "array", "assign", "broadcast_to", "cast", "concatenate", "copy", "drawn", "empty", "extent",
    "flip",
    "from_scalar", "full", "is_contiguous", "pad", "permute", "reshape", "roll", "slice_last",
    "swap_last", "to_numpy",
]  # fmt: skip


# Making and moving


def array(value, dtype):
    return MetaArray(np.shape(value), dtype)


def drawn(draw, shape, dtype):
    return MetaArray(tuple(shape), dtype)


def full(shape, value, dtype):
    return result("full", (), shape, dtype, 0)


def empty(shape, dtype):
    return MetaArray(tuple(shape), dtype)


def copy(x):
    return result("copy", (x,), x.shape, x.dtype, 0)


def cast(x, dtype):
    return result("cast", (x,), x.shape, dtype, 0)


def assign(target, x):
    in_place("assign", target, (x,), 0)


def accumulate(target, x):
    in_place("accumulate", target, (target, x), target.size)


def is_contiguous(x):
    return x.contiguous


def to_numpy(x):
    raise ValueError("a tensor on meta has a shape and no values: build it on cpu to read them")


def from_scalar(x):
    return x


def extent(x):
    return x.storage, 0, 1


# Shapes


def reshape(x, shape):
    shape = tuple(shape)
    if -1 in shape:
        known = -math.prod(shape)
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if math.prod(shape) != x.size:
        raise ValueError(f"cannot reshape an array of shape {x.shape} into {shape}")
    return view("reshape", x if x.contiguous else copy(x), shape)


def permute(x, dims):
    return view("permute", x, (x.shape[d] for d in dims), contiguous=False)


def swap_last(x):
    return view("swap_last", x, (*x.shape[:-2], x.shape[-1], x.shape[-2]), contiguous=False)


def broadcast_to(x, shape):
    return view("broadcast_to", x, shape, contiguous=False)


def concatenate(arrays, dim):
    shape = list(arrays[0].shape)
    shape[dim] = total(x.shape[dim] for x in arrays)
    return result("concatenate", arrays, shape, arrays[0].dtype, 0)


def slice_last(x, start, length):
    return view("slice_last", x, (*x.shape[:-1], length), contiguous=False)


def pad(x, widths, value):
    shape = (n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    return result("pad", (x,), shape, x.dtype, 0)


def flip(x, dims):
    return result("flip", (x,), x.shape, x.dtype, 0)


def roll(x, shifts, dims):
    return result("roll", (x,), x.shape, x.dtype, 0)
