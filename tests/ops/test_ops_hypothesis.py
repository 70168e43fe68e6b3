"""Values, dtypes and gradients are PyTorch's, over random shapes, layouts and options: a table, one row an op.

How a row is written, and what it covers by itself: see oracle.py.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, compare, one, torch, two

from minidl import ops
from minidl.nn import functional

F = torch.nn.functional


NUMBERS = ("float32", "float64", "int64")


def mixed(d, dtypes=(*NUMBERS, "bool")):
    """Two arrays that broadcast, of any dtypes, or one beside a number."""
    shape = d.shape(0, 2)
    shapes = [shape, d.broadcasting(shape)]
    a, b = (d.any(*s, dtypes=dtypes) for s in (shapes if d.flip() else shapes[::-1]))
    return a, (d.pick(2, -1.5) if d.flip() else b)


def two_positive(d):
    shape = d.shape()
    return d.positive(*shape), d.positive(*d.broadcasting(shape))


def any_dtype(d):
    return (d.any(*d.shape()),)


def reduced(d):
    """An array, and one dimension or several to reduce it over, kept or not."""
    x = d.floats(*d.shape(1))
    return x, d.dim(x) if d.flip() else d.dims(x), {"keepdim": d.flip()}


def reduced_over_one(d):
    x = d.floats(*d.shape(1))
    return x, d.dim(x), {"keepdim": d.flip()}


def matrices(d):
    """What matmul takes: matrices with leading dimensions that broadcast, or vectors."""
    m, k, n = d.size(), d.size(), d.size()
    leading = d.shape(0, 2)
    a, b = (*d.broadcasting(leading), m, k), (*leading, k, n)
    return d.floats(*d.pick(a, (k,))), d.floats(*d.pick(b, (k, n), (k,)))


def image(d, channels, low=3):
    return d.floats(d.size(), channels, d.size(low, 7), d.size(low, 7))


ARITHMETIC = [
    Row("add", ops.add, torch.add, two, special=True),
    Row("subtract", ops.subtract, torch.subtract, two, special=True),
    Row("multiply", ops.multiply, torch.multiply, two, special=True),
    Row("divide", ops.divide, torch.divide, two, special=True, tolerance=10),
    Row("negative", ops.negative, torch.negative, one, special=True),
    Row("add, a number", ops.add, torch.add, lambda d: (*one(d), d.pick(2, -0.5))),
    Row("a number minus", lambda x: 2 - x, lambda x: 2 - x, one),
    Row("multiply, by a number", ops.multiply, torch.multiply, lambda d: (*one(d), d.pick(2, -0.5, 0))),
    Row("a number over", lambda x: 3 / x, lambda x: 3 / x, one, special=True),
    Row("add, of any dtypes", ops.add, torch.add, mixed),
    Row("a number plus", lambda a, b: b + a, lambda a, b: b + a, mixed),
    Row("subtract, of any dtypes", ops.subtract, torch.subtract, lambda d: mixed(d, NUMBERS)),
    Row("multiply, of any dtypes", ops.multiply, torch.multiply, mixed),
    Row("divide, of any dtypes", ops.divide, torch.divide, mixed, tolerance=10),
    Row("power, a number", ops.power, torch.pow, lambda d: (*one(d), d.pick(-1, 0, 0.5, 1, 2, 3, 2.5)), tolerance=10),
    Row("power, of any dtypes", ops.power, torch.pow, lambda d: (*any_dtype(d), d.pick(0, 2, 3, 1.0)), tolerance=10),
    Row("power", ops.power, torch.pow, two_positive, tolerance=10),
    Row("power, of a number", lambda b, x: b**x, lambda b, x: b**x, lambda d: (d.pick(2, 0.5, 0), *one(d))),
    Row("power, of ints", ops.power, torch.pow, lambda d: (d.ints(-3, 4, 3), d.ints(0, 4, *d.shape(1, 1, 3)))),
    Row("floor_divide", ops.floor_divide, lambda a, b: torch.floor_divide(a, b).detach(), two_positive),
    Row("floor_divide, of any dtypes", ops.floor_divide, lambda a, b: torch.floor_divide(a, b).detach(), mixed),
    Row("remainder", ops.remainder, torch.remainder, two_positive, tolerance=10),
    Row("remainder, of any dtypes", ops.remainder, torch.remainder, mixed, tolerance=10),
    Row("negative, of any dtype", ops.negative, torch.negative, any_dtype),
    Row("reciprocal", ops.reciprocal, torch.reciprocal, one, tolerance=10),
    Row("square", ops.square, torch.square, one, special=True),
    Row("square, of any dtype", ops.square, torch.square, any_dtype),
]  # fmt: skip

ELEMENTWISE = [
    *[
        Row(name, getattr(ops, name), getattr(torch, name), one, special=True, tolerance=3)
        for name in ("exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "sin", "cos", "erf", "abs", "sign")
    ],
    *[
        Row(f"{name}, of any dtype", getattr(ops, name), getattr(torch, name), any_dtype)
        for name in ("exp", "log1p", "sin", "erf", "sign")
    ],
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: (d.any(*d.shape(), dtypes=NUMBERS),))
        for name in ("floor", "ceil", "round")
    ],
    Row("maximum", ops.maximum, torch.maximum, two, special=True),
    Row("minimum", ops.minimum, torch.minimum, two, special=True),
    Row("clamp", ops.clamp, torch.clamp, lambda d: (*one(d), d.pick(None, -1, 0.5), d.pick(-0.5, 1)), special=True),
    Row("clamp, by a tensor", ops.clamp, torch.clamp,
        lambda d: (x := d.floats(*d.shape()), *d.pick((), (None,)), d.floats(*d.broadcasting(x.shape))), special=True),
    Row("clamp, by tensors", ops.clamp, torch.clamp,
        lambda d: (x := d.floats(*d.shape(1)), d.floats(*d.broadcasting(x.shape)), np.add(d.positive(1), 3))),
    Row("clamp, of ints", ops.clamp, torch.clamp, lambda d: (d.ints(-3, 4, 5), d.pick(0, 0.5), d.pick(2, None))),
    Row("where", ops.where, torch.where, lambda d: (d.bools(*d.shape(0, 2)), *two(d)), special=True),
    Row("where, of any dtypes", ops.where, torch.where, lambda d: (d.bools(*d.shape(1, 1, 1)), *mixed(d))),
    Row(
        "masked_fill",
        ops.masked_fill,
        torch.masked_fill,
        lambda d: (x := d.any(*d.shape(1, 3)), d.bools(*d.broadcasting(x.shape)), d.pick(2, -0.5, True)),
    ),
    Row("lerp", ops.lerp, torch.lerp, lambda d: (d.floats(3), d.floats(3), d.pick(0.25, d.floats(3)))),
    Row("relu", ops.relu, F.relu, one, special=True),
    Row("tanh", ops.tanh, torch.tanh, one, special=True),
    Row("sigmoid", ops.sigmoid, torch.sigmoid, one, special=True),
    Row("leaky_relu", ops.leaky_relu, F.leaky_relu, lambda d: (*one(d), d.pick(0.01, 0.3)), special=True),
    Row(
        "prelu",
        ops.prelu,
        F.prelu,
        lambda d: (x := d.floats(*d.shape(2)), d.floats(d.pick(1, x.shape[1]))),
        special=True,
    ),
    Row("elu", ops.elu, F.elu, lambda d: (*one(d), d.pick(1.0, 0.5))),
    Row("silu", ops.silu, F.silu, one, special=True),
    Row("softplus", ops.softplus, F.softplus, lambda d: (*one(d), d.pick(1.0, 2.5), d.pick(20.0, 1.0)), special=True),
    Row("logsigmoid", ops.logsigmoid, F.logsigmoid, one, special=True),
    Row("mish", ops.mish, F.mish, one),
    Row("erf", ops.erf, torch.erf, one, special=True),
    Row("gelu", ops.gelu, F.gelu, one),
    Row("gelu, tanh", lambda x: ops.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), one),
]  # fmt: skip


def attention(d):
    """Query, key and value with any leading dimensions, a mask of bools or floats that broadcasts, and the options."""
    leading, queries, keys, width = d.shape(0, 2, low=1), d.size(1), d.size(1), d.size(1)
    grouped = bool(leading) and d.flip()
    heads = (*leading[:-1], 2 * leading[-1]) if grouped else leading
    tensors = d.floats(*heads, queries, width), d.floats(*leading, keys, width), d.floats(*leading, keys, d.size(1))
    mask = *d.broadcasting(heads), d.pick(queries, 1), d.pick(keys, 1)
    kind = d.pick("none", "causal", "bools", "floats")
    masks = {"bools": [d.bools(*mask)], "floats": [d.floats(*mask)]}.get(kind, [None])
    return *tensors, *masks, 0.0, kind == "causal", {"scale": d.pick(None, 0.5), "enable_gqa": grouped}


COMPARISON = [
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: two(d) if d.flip() else mixed(d), special=True)
        for name in ("eq", "ne", "gt", "ge", "lt", "le")
    ],
    *[
        Row(name, getattr(ops, name), getattr(torch, name), one, special=True)
        for name in ("isnan", "isinf", "isfinite", "logical_not")
    ],
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: (d.any(2, 3), d.any(*d.pick((3,), (2, 1)))))
        for name in ("logical_and", "logical_or", "logical_xor")
    ],
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: mixed(d, ("int64", "bool")))
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    ],
    Row("bitwise_not", ops.bitwise_not, torch.bitwise_not, lambda d: (d.any(2, 3, dtypes=("int64", "bool")),)),
    Row("isclose", ops.isclose, torch.isclose, lambda d: (*two(d), d.pick(0.0, 0.3), 0.1, d.flip()), special=True),
]  # fmt: skip

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
            lambda d: (*(reduced(d)[:2] if d.flip() else one(d)), {"correction": d.pick(0, 1), "keepdim": d.flip()}))
        for name in ("var", "std")
    ],
    Row("prod", ops.prod, torch.prod, lambda d: one(d) if d.flip() else reduced_over_one(d)),
    Row("prod, of any dtype", ops.prod, torch.prod, any_dtype),
    Row("logsumexp", ops.logsumexp, torch.logsumexp, reduced, special=True),
    Row("norm", ops.norm, torch.norm, lambda d: (x := d.floats(*d.shape(1)), d.pick(1, 2, 3, 0.5, 1.5, math.inf),
                                                 *d.pick((), (d.dims(x), d.flip()))), tolerance=100),
    Row("cumsum", ops.cumsum, torch.cumsum, lambda d: (x := d.any(*d.shape(1)), d.dim(x))),
    *[
        Row(name, getattr(ops, name), getattr(torch, name),
            lambda d: any_dtype(d) if d.flip() else (x := d.any(*d.shape(1)), d.dim(x), {"keepdim": d.flip()}))
        for name in ("any", "all")
    ],
    Row("sort", ops.sort, lambda *a: torch.sort(*a[:1], dim=a[1], descending=a[2], stable=True),
        lambda d: (x := d.floats(*d.shape(1)), d.dim(x), d.flip()), special=True),
    Row("argsort", ops.argsort, lambda *a: torch.argsort(*a[:1], dim=a[1], descending=a[2], stable=True),
        lambda d: (x := d.any(*d.shape(1)), d.dim(x), d.flip())),
    Row("topk", ops.topk, torch.topk,
        lambda d: (x := d.distinct(*d.shape(1)), d.int(0, 2), d.dim(x), d.flip())),
    Row("softmax", ops.softmax, torch.softmax, lambda d: (x := d.floats(*d.shape(1)), d.dim(x))),
    Row("log_softmax", ops.log_softmax, torch.log_softmax, lambda d: (x := d.floats(*d.shape(1)), d.dim(x))),
]  # fmt: skip

SHAPE = [
    Row("reshape", ops.reshape, torch.reshape,
        lambda d: (d.floats(2, d.size(1), 6), d.pick((-1,), (3, -1, 2), (4, -1)))),
    Row("flatten", ops.flatten, torch.flatten, lambda d: (d.floats(*d.shape(2)), d.int(0, 1), d.int(-1, 1))),
    Row("squeeze", ops.squeeze, torch.squeeze, lambda d: (x := d.floats(*d.shape(1)), *d.pick((), (d.dim(x),)))),
    Row("unsqueeze", ops.unsqueeze, torch.unsqueeze, lambda d: (x := d.floats(*d.shape()), d.int(-x.ndim - 1, x.ndim))),
    Row("permute", ops.permute, torch.permute, lambda d: (d.floats(*d.shape(3, 3)), d.pick((2, 0, 1), (0, -1, 1)))),
    Row("transpose", ops.transpose, torch.transpose, lambda d: (x := d.floats(*d.shape(1)), d.dim(x), d.dim(x))),
    Row("expand", lambda x, s: x.expand(s), lambda x, s: x.expand(s),
        lambda d: (d.floats(*d.broadcasting(s := d.shape())), s)),
    Row("cat", ops.cat, torch.cat, lambda d: ([d.floats(2, d.size(), 3) for _ in range(d.int(1, 3))], d.pick(1, -2))),
    Row("cat, of any dtypes", ops.cat, torch.cat, lambda d: ([d.any(2), d.any(0), d.any(1)],)),
    Row("movedim", ops.movedim, torch.movedim,
        lambda d: (d.floats(*d.shape(3, 3)), *d.pick((0, -1), (1, 0), ((0, 1), (-1, 0)), ((0, 0), (1, 2))))),
    Row("narrow", ops.narrow, torch.narrow, lambda d: (x := d.floats(3, 4), d.dim(x), d.int(-3, 3), d.int(0, 3))),
    Row("chunk", ops.chunk, torch.chunk, lambda d: (x := d.floats(*d.shape(1)), d.int(1, 5), d.dim(x))),
    Row("unbind", ops.unbind, torch.unbind, lambda d: (x := d.floats(*d.shape(1, low=1)), d.dim(x))),
    Row("repeat", ops.repeat, lambda x, n: x.repeat(n),
        lambda d: (x := d.floats(*d.shape(0, 3)), tuple(d.int(0, 3) for _ in range(x.ndim + d.int(0, 2))))),
    Row("repeat_interleave", ops.repeat_interleave, torch.repeat_interleave,
        lambda d: (d.floats(3, 2), d.pick(0, 2, np.array([1, 0, 2])), d.pick(0, -2)), meta=False),
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: (d.any(*d.shape(2)), d.int(-3, 3)))
        for name in ("tril", "triu")
    ],
    Row("diagonal", ops.diagonal, torch.diagonal,
        lambda d: (x := d.floats(*d.shape(2)), d.int(-3, 3), *d.pick((), (d.dim(x), d.dim(x))))),
    Row("diag", ops.diag, torch.diag, lambda d: (d.floats(*d.shape(1, 2)), d.int(-2, 2))),
    Row("flip", ops.flip, torch.flip, lambda d: (x := d.floats(*d.shape(1)), d.dims(x))),
    Row("roll", ops.roll, torch.roll,
        lambda d: (*one(d), d.int(-5, 5)) if d.flip() else (d.floats(3, 4), (d.int(-5, 5), 1), (0, -1))),
    Row("pad", ops.pad, F.pad,
        lambda d: (x := d.floats(*d.shape(1, low=1)), [d.int(-1, 3) for _ in range(2 * x.ndim)], "constant", 1.5)),
    *[
        Row(f"pad, {mode}", ops.pad, F.pad,
            lambda d, mode=mode: (d.floats(2, 3, 4, 5), [d.int(0, 4) for _ in range(4)], mode))
        for mode in ("reflect", "replicate", "circular")
    ],
    Row("stack", ops.stack, torch.stack, lambda d: ([d.floats(2, 3) for _ in range(d.int(1, 3))], d.int(-3, 2))),
    Row("split", ops.split, torch.split, lambda d: (d.floats(2, 5), d.pick(2, 5, 7, [1, 4], [0, 2, 3]), d.pick(1, -1))),
]  # fmt: skip


def keys(d):
    """A tensor of three dimensions, and a key for it as NumPy and PyTorch have them."""
    n, m, o = shape = d.shape(3, 3, low=1)
    parts = [
        [d.int(-size, size - 1), slice(None), slice(d.int(-5, 5), d.int(-5, 5), d.pick(None, 1, 2, 3)), None]
        for size in shape
    ]
    parts[1].append(...)
    arrays = [d.ints(-size, size, *d.pick((3,), (2, 1), (2, 3))) for size in shape]
    array = d.pick(
        (arrays[0],), (arrays[0].tolist(),), (slice(None), arrays[1]), (arrays[0], slice(None), arrays[2]),
        (slice(0, 1), arrays[1], slice(1)), (*arrays[:2],), (0, slice(None), arrays[2]), (arrays[0], None, ..., 0),
        (..., arrays[2]), (0, arrays[1]), (None, arrays[0], slice(0, 2)), (d.bools(n, m),), (d.bools(n), slice(0, 1)),
        (slice(0, 1), d.bools(m, o)), (0, d.bools(m)), ([],),
        (np.array(0),), (np.array(True),), ([0, -1], [0, 0], [0, 0]), (slice(None, None, -1),), (7,), (0, 0, 0, 0),
    )  # fmt: skip
    key = array if d.flip() else tuple(d.pick(*p) for p in parts[: d.int(1, 3)])
    return d.floats(*shape), *key


def along(d):
    """A tensor, a dimension, and an index for gather that is smaller in some other dimensions."""
    x = d.floats(*d.shape(1, 3, low=1))
    dim = d.dim(x)
    shape = [d.int(0, n) for n in x.shape]
    shape[dim] = d.int(0, 5)
    return x, dim, d.ints(0, x.shape[dim], *shape)


def scattered(d):
    """What gather takes, but without a place named twice, and a source."""
    x = d.floats(*d.shape(1, 3, low=1))
    dim = d.dim(x)
    shape = [d.int(1, n) for n in x.shape]
    index = np.argsort(d.generator.random(x.shape), dim)[tuple(slice(n) for n in shape)]
    return x, dim, index, d.floats(*shape)


INDEXING = [
    Row("x[key]", lambda x, *key: x[key], lambda x, *key: x[key], keys, meta=False),
    Row("gather", ops.gather, torch.gather, along),
    Row("scatter", ops.scatter, torch.scatter, scattered),
    Row("scatter, a number", ops.scatter, torch.scatter, lambda d: (*scattered(d)[:3], 1.5)),
    Row("scatter_add", ops.scatter_add, torch.scatter_add, lambda d: (*(a := along(d)), d.floats(*a[2].shape))),
    Row("index_select", ops.index_select, torch.index_select,
        lambda d: (x := d.floats(*d.shape(1, low=1)), i := d.dim(x), d.ints(0, x.shape[i], *d.pick((3,), (0,), ())))),
    Row("masked_select", ops.masked_select, torch.masked_select,
        lambda d: (x := d.floats(*d.shape()), d.bools(*d.broadcasting(x.shape))), meta=False),
    Row("take_along_dim", ops.take_along_dim, torch.take_along_dim,
        lambda d: (d.floats(*d.pick((3, 4), (3, 1))), d.ints(0, 3, *d.pick((2, 4), (2, 1))), d.pick(0, -2))),
    Row("one_hot", ops.one_hot, F.one_hot, lambda d: (d.ints(0, 4, *d.shape(low=1)), d.pick(4, 5, -1)), meta=False),
]  # fmt: skip

LAYERS = [
    Row("matmul", ops.matmul, torch.matmul, matrices),
    Row("linear", ops.linear, F.linear,
        lambda d: (d.floats(*d.shape(0, 3), i := d.size()), d.floats(o := d.size(), i), *d.pick((), (d.floats(o),)))),
    Row("embedding", ops.embedding, F.embedding, lambda d: (d.ints(0, 5, *d.shape(0, 3)), d.floats(5, d.size()))),
    Row("cross_entropy", functional.cross_entropy, F.cross_entropy,
        lambda d: (d.floats(n := d.size(1), 3), d.ints(0, 3, n))),
    Row("conv2d", ops.conv2d, F.conv2d,
        lambda d: (image(d, 3), d.floats(4, 3, d.size(1, 3), d.size(1, 3)), *d.pick((), (d.floats(4),)),
                   {"stride": d.pick(1, 2, (2, 1)), "padding": d.pick(0, 1, (1, 2))})),
    Row("max_pool2d", ops.max_pool2d, F.max_pool2d,
        lambda d: (image(d, 2), d.pick(2, 3, (2, 3)), {"stride": d.pick(None, 1, 2), "padding": d.pick(0, 1)})),
    Row("attention", ops.scaled_dot_product_attention, F.scaled_dot_product_attention, attention, tolerance=10),
]  # fmt: skip

ROWS = ARITHMETIC + ELEMENTWISE + COMPARISON + REDUCTION + SHAPE + INDEXING + LAYERS


@pytest.mark.filterwarnings("ignore::UserWarning:.*oracle")  # PyTorch's, of a variance without degrees of freedom
@pytest.mark.parametrize("row", ROWS, ids=str)
@settings(max_examples=20)
@given(data=st.data())
def test_values_and_gradients_are_those_of_pytorch(row, data):
    compare(row, data.draw)
