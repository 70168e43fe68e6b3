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


def _reduction(name, dtype=None):
    """Of `dtype`, a function of x; None: of x's."""

    def kernel(x, dim, keepdim):
        found = dtype(x) if dtype else x.dtype
        return _reduced(name, (x,), shapes.reduced(x.shape, dim, keepdim), found, flops=x.size)

    return kernel


def _place(name):
    return lambda x, dim: _reduced(name, (x,), shapes.reduced(x.shape, dim, False), np.int64, flops=x.size)


sum, prod = _reduction("sum", _total), _reduction("prod", _total)
max, min = _reduction("max"), _reduction("min")
any, all = _reduction("any", lambda x: bool), _reduction("all", lambda x: bool)
argmax, argmin = _place("argmax"), _place("argmin")


def squared_norm(x):
    return reduce_to_number("squared_norm", x, 2 * x.size)


def prod_grad(grad, x, dim):
    return _reduced("prod_grad", (grad, x), x.shape, x.dtype, 4)


def cumsum(x, dim):
    return _reduced("cumsum", (x,), x.shape, _total(x))


def argsort(x, dim, descending):
    comparisons = math.ceil(math.log2(x.shape[dim] or 1))
    return _reduced("argsort", (x,), x.shape, np.int64, comparisons)
