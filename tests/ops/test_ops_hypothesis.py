"""Elementwise ops and layers: values, dtypes and gradients are PyTorch's, over random shapes, layouts and options.

A table, one row an op: how a row is written, and what it covers by itself, is said in oracle.py.
"""

import numpy as np
from oracle import NUMBERS, Row, any_dtype, held_to_pytorch, mixed, one, torch, two

from minidl import ops
from minidl.nn import functional

F = torch.nn.functional


def two_positive(d):
    shape = d.shape()
    return d.positive(*shape), d.positive(*d.broadcasting(shape))


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
    Row("remainder, of multiples, whose quotient may be rounded up", ops.remainder, torch.remainder,
        lambda d: (np.arange(-20, 20) * (b := np.full(40, d.pick(0.1, 0.3, -0.7, 1e-3), d.dtype)), b)),
    Row("remainder, of what is not finite", ops.remainder, torch.remainder, two, special=True),
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

LAYERS = [
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

test_values_and_gradients_are_those_of_pytorch = held_to_pytorch(ARITHMETIC + ELEMENTWISE + COMPARISON + LAYERS)
