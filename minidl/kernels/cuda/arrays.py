"""Making, moving and reshaping arrays. What moves elements is a map of the function that changes nothing."""

from builtins import sum as total

import numpy as np

from minidl.kernels import memory_order
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.device_memory import compute, device
from minidl.kernels.cuda.elementwise import broadcast_strides, map_into
from minidl.kernels.cuda.refusals import look
from minidl.kernels.cuda.staging import pinned, staging

__all__ = [
    "accumulate", "array", "assign", "broadcast_to", "cast", "concatenate", "copy", "drawn", "empty", "extent",
    "fill", "flip",
    "from_scalar", "full", "is_contiguous", "pad", "permute", "reshape", "roll", "slice_last", "swap_last", "to_numpy",
]  # fmt: skip

SMALL = 1 << 16  # bytes


# Making and moving


def array(value, dtype):
    """A new contiguous array with a copy of `value`, which lies on the host and may change or go afterwards.

    Small values go by way of pinned memory, so that nothing waits for what the GPU has still to compute before it
    copies them. Large ones are waited for: they take long anyway.
    """
    values = np.asarray(value, dtype, order="C")
    out = CudaArray(values.shape, values.dtype)
    if 0 < values.nbytes <= SMALL:
        staged = pinned(values.shape, values.dtype)
        staged[...] = values
        device.to_device(out.storage.block, 0, staged, compute)
        staging.copied(staged, device.Event(compute))
    elif out.size:
        device.to_device(out.storage.block, 0, values, compute)
        compute.synchronize()
    return out


def drawn(draw, shape, dtype):
    """The random numbers that `draw(shape)` gives."""
    return array(draw(shape), dtype)


def full(shape, value, dtype):
    out = CudaArray(tuple(shape), dtype)
    fill(out, value)
    return out


def empty(shape, dtype):
    return CudaArray(tuple(shape), dtype)


def copy(x):
    out = CudaArray(x.shape, x.dtype)
    map_into("same", out, x)
    return out


def cast(x, dtype):
    dtype = np.dtype(dtype)
    out = CudaArray(x.shape, dtype, strides=memory_order.like(x.shape, x.strides))
    map_into("same", out, x, F=x.dtype.type)
    return out


def assign(target, x):
    """target[...] = x, in place."""
    map_into("same", target, x, F=x.dtype.type)


def fill(target, number):
    """target[...] = number, in place."""
    map_into("number", target, numbers=(number,))


def accumulate(target, x):
    """target += x, in place."""
    map_into("add", target, target, x)


def is_contiguous(x):
    return x.contiguous


def contiguous(x):
    """x, or a copy in row-major order."""
    return x if x.contiguous else copy(x)


def to_numpy(x):
    """A copy on the host: waits until the GPU has computed it, and raises what kernels so far have refused."""
    x = contiguous(x)
    out = np.empty(x.shape, x.dtype)
    if x.size:
        device.to_host(out, x.storage.block, x.offset * x.dtype.itemsize, compute)
        compute.synchronize()
        look()
    return out


def from_scalar(x):
    return x


def extent(x):
    """Where x lies: its storage, and the first byte and the one after the last."""
    start = x.address - x.first * x.dtype.itemsize
    reach = total(abs(step) * (n - 1) for n, step in zip(x.shape, x.strides, strict=True)) + 1 if x.size else 0
    return x.storage, start, start + reach * x.dtype.itemsize


# Shapes


def reshape(x, shape):
    shape, strides = memory_order.whole_shape(x, shape), None
    if not x.contiguous:
        strides = memory_order.reshaped(x.shape, x.strides, shape)
        if strides is None:
            x = copy(x)
    return x.view(shape, strides)


def permute(x, dims):
    """A view with the dimensions in the order `dims`: not contiguous."""
    return x.view(tuple(x.shape[d] for d in dims), tuple(x.strides[d] for d in dims))


def swap_last(x):
    """A view with the last two dimensions exchanged: not contiguous."""
    *others, a, b = range(x.ndim)
    return permute(x, (*others, b, a))


def broadcast_to(x, shape):
    """A view in which stretched dimensions repeat the same memory."""
    return x.view(tuple(shape), broadcast_strides(x, tuple(shape)))


def concatenate(arrays, dim):
    shape = list(arrays[0].shape)
    dim %= len(shape)
    shape[dim] = total(x.shape[dim] for x in arrays)
    out, start = CudaArray(tuple(shape), np.result_type(*(x.dtype for x in arrays))), 0
    for x in arrays:
        assign(part(out, dim, start, x.shape[dim]), x)
        start += x.shape[dim]
    return out


def part(x, dim, start, length):
    """The view of `length` places from `start` on along dimension `dim`."""
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    return x.view(shape, x.strides, start * x.strides[dim] if length else 0)


def slice_last(x, start, length):
    """The view x[..., start : start + length]: not contiguous."""
    return part(x, x.ndim - 1, start, length)


def pad(x, widths, value):
    """x with `value` around it: widths[d] = (before, after) along dimension d."""
    out = inside = full(
        (n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)), value, x.dtype
    )
    for d, (before, _) in enumerate(widths):
        inside = part(inside, d, before, x.shape[d])
    assign(inside, x)
    return out


def flip(x, dims):
    """A copy in reverse order along the dimensions `dims`."""
    dims = {d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)}
    strides = tuple(-step if d in dims else step for d, step in enumerate(x.strides))
    last = total(x.strides[d] * (x.shape[d] - 1) for d in dims) if x.size else 0
    return copy(x.view(x.shape, strides, last))


def roll(x, shifts, dims):
    """x moved on by `shifts` along `dims`, end to beginning; as one row of elements if dims is None."""
    if dims is None:
        return reshape(roll(reshape(x, (x.size,)), shifts, 0), x.shape)
    shifts, dims = ((a,) if isinstance(a, int) else tuple(a) for a in (shifts, dims))
    for shift, d in zip(shifts, dims, strict=True):
        n = x.shape[d]
        shift = shift % n if n else 0
        x = concatenate([part(x, d % x.ndim, n - shift, shift), part(x, d % x.ndim, 0, n - shift)], d)
    return x
