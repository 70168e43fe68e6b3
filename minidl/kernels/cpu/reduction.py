"""Many elements to one: sums, extremes, products; running sums; the order of elements.

dim: an int or a tuple, None for all, where a kernel says no other thing. keepdim: they stay, of
size 1.
"""

import numpy as np

__all__ = [
    "all", "any", "argmax", "argmin", "argsort", "cumsum", "max", "min", "prod", "prod_grad", "squared_norm", "sum",
]  # fmt: skip


def sum(x, dim, keepdim):
    """The sum over `dim`; of integers and bools in int64."""
    return np.asarray(x.sum(axis=dim, keepdims=keepdim))


def max(x, dim, keepdim):
    """The largest element over `dim`, NaN if one is."""
    return np.asarray(x.max(axis=dim, keepdims=keepdim))


def min(x, dim, keepdim):
    """The smallest element over `dim`, NaN if one is."""
    return np.asarray(x.min(axis=dim, keepdims=keepdim))


def argmax(x, dim):
    """The index, int64, of the (first) largest element along `dim`, an int; in the flat array if None."""
    return np.asarray(x.argmax(axis=dim))


def argmin(x, dim):
    """The index, int64, of the (first) smallest element along `dim`, an int; in the flat array if None."""
    return np.asarray(x.argmin(axis=dim))


def any(x, dim, keepdim):
    """Whether an element over `dim` is not 0: bools."""
    return np.asarray(x.any(axis=dim, keepdims=keepdim), bool)


def all(x, dim, keepdim):
    """Whether no element over `dim` is 0: bools."""
    return np.asarray(x.all(axis=dim, keepdims=keepdim), bool)


def squared_norm(x):
    """The sum of the squares of the 1-D array x: a number."""
    return float(np.vdot(x, x))


def prod(x, dim, keepdim):
    """The product over `dim`; of integers and bools in int64."""
    return np.asarray(x.prod(axis=dim, keepdims=keepdim))


def prod_grad(grad, x, dim):
    """grad (x's shape, but 1 along `dim`) times the product of all other elements along `dim`, an int."""
    before, after = np.ones_like(x), np.ones_like(x)
    lead = (slice(None),) * dim
    rest, start = (*lead, slice(1, None)), (*lead, slice(None, -1))
    np.cumprod(x[start], axis=dim, out=before[rest])
    after[start] = np.flip(np.cumprod(np.flip(x[rest], dim), axis=dim), dim)
    return grad * before * after


def cumsum(x, dim):
    """Running sums along `dim`, an int, in the shape of x; of integers and bools in int64."""
    return x.cumsum(axis=dim)


def argsort(x, dim, descending):
    """The indices that sort x along `dim`, an int: equal elements stay in order, NaN is the largest."""
    if not descending:
        return x.argsort(axis=dim, kind="stable")
    return x.shape[dim] - 1 - np.flip(np.flip(x, dim).argsort(axis=dim, kind="stable"), dim)
