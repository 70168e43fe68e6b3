"""Reductions and sorting: values, dtypes and gradients are PyTorch's, over random shapes, layouts and options.

A table, one row an op: how a row is written, and what it covers by itself, is said in oracle.py.
"""

import math

import pytest
from oracle import Row, any_dtype, held_to_pytorch, one, torch, two

from minidl import ops

# PyTorch warns of a variance without degrees of freedom
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:oracle")


def reduced(d):
    """An array, and one dimension or several to reduce it over, kept or not."""
    x = d.floats(*d.shape())
    return x, d.dim(x) if d.flip() else d.dims(x), {"keepdim": d.flip()}


def reduced_over_one(d):
    x = d.floats(*d.shape())
    return x, d.dim(x), {"keepdim": d.flip()}


def spread(d, name):
    """An array; for a standard deviation of different numbers: of equal ones, rounding is all that it has."""
    return (d.distinct if name == "std" else d.floats)(*d.shape())


def spread_over(d, name):
    x = spread(d, name)
    return x, *d.pick((), (d.dim(x),), (d.dims(x),)), {"correction": d.pick(0, 1), "keepdim": d.flip()}


REDUCTION = [
    Row("sum", ops.sum, torch.sum, reduced, special=True),
    Row("sum, all", ops.sum, torch.sum, one),
    Row("sum, ints", ops.sum, torch.sum, lambda d: (d.ints(-3, 4, *d.shape()),)),
    Row("mean", ops.mean, torch.mean, reduced),
    Row("mean, all", ops.mean, torch.mean, one),
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: one(d) if d.flip() else reduced_over_one(d),
            special=True)
        for name in ("max", "min", "argmax", "argmin")
    ],
    Row("max, of two", ops.max, torch.max, two),
    Row("amax", ops.amax, torch.amax, reduced),
    Row("amin", ops.amin, torch.amin, reduced),
    *[
        Row(name, getattr(ops, name), getattr(torch, name),
            lambda d, name=name: spread_over(d, name))
        for name in ("var", "std")
    ],
    Row("prod", ops.prod, torch.prod, lambda d: one(d) if d.flip() else reduced_over_one(d)),
    Row("prod, of any dtype", ops.prod, torch.prod, any_dtype),
    Row("logsumexp", ops.logsumexp, torch.logsumexp, reduced, special=True),
    Row("norm", ops.norm, torch.norm,
        lambda d: (x := d.floats(*d.shape()), d.pick(0, 1, 2, 3, 0.5, 1.5, math.inf, -math.inf),
                   *d.pick((), (d.dims(x), d.flip()))), tolerance=100),
    *[
        Row(f"{name}, unbiased or not", getattr(ops, name), getattr(torch, name),
            lambda d, name=name: (spread(d, name), d.flip()))
        for name in ("var", "std")
    ],
    Row("cumsum", ops.cumsum, torch.cumsum, lambda d: (x := d.any(*d.shape()), d.dim(x))),
    *[
        Row(name, getattr(ops, name), getattr(torch, name),
            lambda d: any_dtype(d) if d.flip() else (x := d.any(*d.shape()), d.dim(x), {"keepdim": d.flip()}))
        for name in ("any", "all")
    ],
    Row("sort", ops.sort, lambda *a: torch.sort(*a[:1], dim=a[1], descending=a[2], stable=True),
        lambda d: (x := d.floats(*d.shape()), d.dim(x), d.flip()), special=True),
    Row("argsort", ops.argsort, lambda *a: torch.argsort(*a[:1], dim=a[1], descending=a[2], stable=True),
        lambda d: (x := d.any(*d.shape()), d.dim(x), d.flip())),
    Row("topk", ops.topk, torch.topk,
        lambda d: (x := d.distinct(*d.shape()), d.int(0 if x.ndim else 1, 2), d.dim(x), d.flip())),
    Row("softmax", ops.softmax, torch.softmax, lambda d: (x := d.floats(*d.shape()), d.dim(x))),
    Row("log_softmax", ops.log_softmax, torch.log_softmax, lambda d: (x := d.floats(*d.shape()), d.dim(x))),
]  # fmt: skip

test_values_and_gradients_are_those_of_pytorch = held_to_pytorch(REDUCTION)
