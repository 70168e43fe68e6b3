"""Making, moving, reducing, reshaping and indexing arrays."""

import numpy as np

__all__ = [
    "accumulate", "argmax", "array", "assign", "broadcast_to", "cast", "concatenate", "copy", "empty", "extent",
    "from_scalar", "full", "index", "index_assign", "index_grad", "max", "permute", "reshape", "slice_last", "sum",
    "swap_last", "to_numpy",
]  # fmt: skip


# Making and moving


def array(value, dtype):
    """A new contiguous array with a copy of `value`."""
    return np.array(value, dtype, order="C")


def full(shape, value, dtype):
    return np.full(shape, value, dtype)


def empty(shape, dtype):
    return np.empty(shape, dtype)


def copy(x):
    return x.copy()


def cast(x, dtype):
    return x.astype(dtype)


def assign(target, x):
    """target[...] = x, in place."""
    np.copyto(target, x)


def accumulate(target, x):
    """target += x, in place."""
    np.add(target, x, out=target)


def to_numpy(x):
    return x


def from_scalar(x):
    """The array of a result without dimensions, of which NumPy makes a number."""
    return np.asarray(x)


def extent(x):
    """Where x lies: the array that owns the memory, and the first address and the one after the last."""
    owner = x
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner, *np.lib.array_utils.byte_bounds(x)


# Reductions


def sum(x, dim, keepdim):
    """Sum over the dimensions `dim` (an int or a tuple; None for all)."""
    return np.asarray(x.sum(axis=dim, keepdims=keepdim))


def max(x, dim, keepdim):
    return np.asarray(x.max(axis=dim, keepdims=keepdim))


def argmax(x, dim):
    """The index of the (first) largest element along `dim`, in the flat array if None."""
    return np.asarray(x.argmax(axis=dim))


# Shapes


def reshape(x, shape):
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
    return np.concatenate(arrays, axis=dim)


def slice_last(x, start, length):
    """The view x[..., start : start + length]: not contiguous."""
    return x[..., start : start + length]


def index(x, key):
    """x[key] by NumPy's rules: a view for ints and slices, a copy for index arrays."""
    return np.asarray(x[key])


def index_assign(target, key, x):
    """target[key] = x, in place."""
    target[key] = x


def index_grad(grad, key, shape):
    """Zeros of `shape` with `grad` added at `key`; an element named several times by index arrays gets every part."""
    out = np.zeros(shape, grad.dtype)
    if any(isinstance(k, np.ndarray) for k in key):
        np.add.at(out, key, grad)
    else:
        out[key] = grad
    return out
