"""Reading and writing elements by their places, with keys by NumPy's rules: ints, slices and arrays."""

import numpy as np

__all__ = ["check_indices", "index", "index_add", "index_assign", "index_grad", "index_put"]


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
