"""Many elements to one, running sums, the order of elements: shapes and costs."""

import math
from functools import partial

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.meta.record import reduce_to_number, result

__all__ = [
    "all", "any", "argmax", "argmin", "argsort", "cumsum", "max", "min", "prod", "prod_grad", "squared_norm", "sum",
]  # fmt: skip

_reduced = partial(result, kind="reduction")


def _total(x):
    """The dtype of a sum or product: integers and bools are counted in int64."""
    return x.dtype if x.dtype.kind == "f" else np.int64


def sum(x, dim, keepdim):
    return _reduced("sum", (x,), shapes.reduced(x.shape, dim, keepdim), _total(x), flops=x.size)


def max(x, dim, keepdim):
    return _reduced("max", (x,), shapes.reduced(x.shape, dim, keepdim), x.dtype, flops=x.size)


def min(x, dim, keepdim):
    return _reduced("min", (x,), shapes.reduced(x.shape, dim, keepdim), x.dtype, flops=x.size)


def argmax(x, dim):
    return _reduced("argmax", (x,), shapes.reduced(x.shape, dim, False), np.int64, flops=x.size)


def argmin(x, dim):
    return _reduced("argmin", (x,), shapes.reduced(x.shape, dim, False), np.int64, flops=x.size)


def any(x, dim, keepdim):
    return _reduced("any", (x,), shapes.reduced(x.shape, dim, keepdim), bool, flops=x.size)


def all(x, dim, keepdim):
    return _reduced("all", (x,), shapes.reduced(x.shape, dim, keepdim), bool, flops=x.size)


def squared_norm(x):
    return reduce_to_number("squared_norm", x, 2 * x.size)


def prod(x, dim, keepdim):
    return _reduced("prod", (x,), shapes.reduced(x.shape, dim, keepdim), _total(x), flops=x.size)


def prod_grad(grad, x, dim):
    return _reduced("prod_grad", (grad, x), x.shape, x.dtype, 4)


def cumsum(x, dim):
    return _reduced("cumsum", (x,), x.shape, _total(x))


def argsort(x, dim, descending):
    comparisons = math.ceil(math.log2(x.shape[dim] or 1))
    return _reduced("argsort", (x,), x.shape, np.int64, comparisons)
