"""Reading and writing elements by their places, with keys by NumPy's rules: ints, slices and arrays; rows by index."""

import numpy as np

__all__ = [
    "check_indices", "embedding", "embedding_grad", "index", "index_add", "index_assign", "index_grad", "index_put",
]  # fmt: skip


def index(x, key):
    """x[key]: a view for ints and slices, a copy for arrays."""
    found = x[key]
    return found if isinstance(found, np.ndarray) else x[(*key, ...)]  # a view of one element, not NumPy's number


def index_assign(target, key, x):
    """target[key] = x, in place."""
    target[key] = x


def index_put(x, key, values):
    """A copy of x with `values` at `key`."""
    out = x.copy()
    out[key] = values
    return out


def index_add(x, key, values):
    """A copy of x with `values` added at `key`; a place named several times gets every part."""
    out = x.copy()
    _add_at(out, key, values)
    return out


def _add_at(target, key, values):
    """target[key] += values in place, for a contiguous target."""
    if values.size and len(key) == target.ndim and all(isinstance(k, np.ndarray) and k.dtype != bool for k in key):
        # one index for each element is four times quicker than several
        places = np.ravel_multi_index(np.broadcast_arrays(*key), target.shape, mode="wrap")
        target, key, values = target.reshape(-1), places.reshape(-1), values.reshape(-1)
    np.add.at(target, key, values)


def index_grad(grad, key, shape):
    """Zeros of `shape` with `grad` added at `key`; a place named several times gets every part."""
    out = np.zeros(shape, grad.dtype)
    if any(isinstance(k, np.ndarray) and k.dtype != bool for k in key):
        _add_at(out, key, grad)
    else:
        out[key] = grad
    return out


def check_indices(name, indices, size):
    """IndexError unless the indices lie in [0, size)."""
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        raise IndexError(f"{name}: indices lie in [{indices.min()}, {indices.max()}], the places in [0, {size})")


def embedding(weight, indices):
    """weight (rows, width), indices (...) of int64 -> (..., width); ValueError if an index names no row."""
    if indices.size and not 0 <= indices.min() <= indices.max() < len(weight):
        raise ValueError(
            f"embedding: indices lie in [{indices.min()}, {indices.max()}], the table has rows [0, {len(weight)})"
        )
    return weight[indices]


def embedding_grad(grad, indices, rows):
    """The sum of the rows of grad (..., width) by index -> (rows, width)."""
    flat = indices.reshape(-1)
    out = np.zeros((rows, grad.shape[-1]), grad.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        sorted_indices = flat[order]
        starts = np.flatnonzero(np.diff(sorted_indices, prepend=-1))
        out[sorted_indices[starts]] = np.add.reduceat(grad.reshape(flat.size, -1)[order], starts, axis=0)
    return out
