"""Making, moving and reshaping arrays."""

import numpy as np

__all__ = [
    "accumulate", "array", "assign", "broadcast_to", "cast", "concatenate", "copy", "drawn", "empty", "extent",
    "fill", "flip", "from_device",
    "from_scalar", "full", "is_contiguous", "pad", "permute", "reshape", "roll", "slice_last", "swap_last",
    "to_host", "to_numpy",
]  # fmt: skip


# Making and moving


def array(value, dtype):
    """A new contiguous array with a copy of `value`."""
    return np.array(value, dtype, order="C")


def drawn(draw, shape, dtype):
    """A new contiguous array of the numbers that `draw(shape)` gives; on meta it is not asked for them."""
    return np.array(draw(shape), dtype, order="C")


def full(shape, value, dtype):
    """A new contiguous array with `value` everywhere."""
    return np.full(shape, value, dtype)


def empty(shape, dtype):
    """A new contiguous array whose elements may be anything."""
    return np.empty(shape, dtype)


def copy(x):
    """A new contiguous array with the elements of x."""
    return x.copy()


def cast(x, dtype):
    """A copy of x in another dtype, in the order of memory of x."""
    return x.astype(dtype)


def assign(target, x):
    """target[...] = x, in place."""
    np.copyto(target, x)


def fill(target, number):
    """target[...] = number, in place."""
    target.fill(number)


def accumulate(target, x):
    """target += x, in place."""
    np.add(target, x, out=target)


def is_contiguous(x):
    """Whether the elements of x lie in row-major order, without gaps."""
    return x.flags.c_contiguous


def to_numpy(x):
    """x itself: NumPy's array, not a copy."""
    return x


def to_host(x, beside):
    """The values of x on the host: x itself; beside: they may arrive there later."""
    return x


def from_device(x, kernels, beside):
    """A copy of x, an array of the other device `kernels`. beside: it may run beside the computation."""
    return kernels.to_host(x, beside)


def from_scalar(x):
    """The array of a result without dimensions, of which NumPy makes a number."""
    return np.asarray(x)


def extent(x):
    """Where x lies: the array that owns the memory, and the first address and the one after the last."""
    owner = x
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner, *np.lib.array_utils.byte_bounds(x)


# Shapes


def reshape(x, shape):
    """x in another shape, one of whose sizes may be -1: a view where NumPy has one, else a copy."""
    return x.reshape(shape)


def permute(x, dims):
    """A view with the dimensions in the order `dims`: not contiguous."""
    return x.transpose(dims)


def swap_last(x):
    """A view with the last two dimensions exchanged: not contiguous."""
    return x.swapaxes(-1, -2)


def broadcast_to(x, shape):
    """A read-only view in which stretched dimensions repeat the same memory."""
    return np.broadcast_to(x, shape)


def concatenate(arrays, dim):
    """A new array of arrays that differ in size along `dim` alone, one after the other."""
    return np.concatenate(arrays, axis=dim)


def slice_last(x, start, length):
    """The view x[..., start : start + length]: not contiguous."""
    return x[..., start : start + length]


def pad(x, widths, value):
    """A new array, x with `value` around it: widths[d] = (before, after) along dimension d."""
    return np.pad(x, widths, constant_values=value) if widths else x.copy()


def flip(x, dims):
    """A copy in reverse order along the dimensions `dims`."""
    return np.flip(x, dims).copy()


def roll(x, shifts, dims):
    """A copy of x moved on by `shifts` along `dims`, end to beginning; as one row of elements if dims is None."""
    return np.roll(x, shifts, dims)
