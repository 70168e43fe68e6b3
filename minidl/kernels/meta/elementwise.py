"""Elementwise functions: shapes and costs. A transcendental function counts as 10 FLOPs."""

import numpy as np

from minidl.kernels.meta.record import MetaArray, elementwise_strides, result

__all__ = [
    "absolute", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "clamp", "cos", "divide",
    "equal", "erf", "exp", "expm1", "floor", "floor_divide", "greater", "greater_equal", "isclose", "isfinite", "isinf",
    "isnan", "less", "less_equal", "log", "log1p", "log2", "logical_and", "logical_not", "logical_or", "masked",
    "maximum", "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad", "remainder", "round",
    "sigmoid", "sign", "sin", "sqrt", "subtract", "tanh", "where",
]  # fmt: skip


def _unary(name, flops=1, dtype=None):
    return lambda x: _elementwise(name, (x,), flops, dtype)


def _binary(name, flops=1, dtype=None):
    return lambda a, b: _elementwise(name, (a, b), flops, dtype)


def _elementwise(name, inputs, flops, dtype=None):
    arrays = [x for x in inputs if isinstance(x, MetaArray)]  # the others are plain numbers
    shape = arrays[0].shape if len(arrays) == 1 else np.broadcast_shapes(*(x.shape for x in arrays))
    found = arrays[0].dtype
    if any(x.dtype != found for x in arrays):  # a mask and numbers
        found = np.result_type(*(x.dtype for x in arrays))
    return result(name, arrays, shape, dtype or found, flops, strides=elementwise_strides(arrays, shape))


add = _binary("add")
subtract = _binary("subtract")
multiply = _binary("multiply")
divide = _binary("divide")
power = _binary("power", 10)
maximum = _binary("maximum")
minimum = _binary("minimum")
negative = _unary("negative")
exp = _unary("exp", 10)
expm1 = _unary("expm1", 10)
log = _unary("log", 10)
log1p = _unary("log1p", 10)
sqrt = _unary("sqrt")
tanh = _unary("tanh", 10)
absolute = _unary("absolute")
log2 = _unary("log2", 10)
sin = _unary("sin", 10)
cos = _unary("cos", 10)
floor = _unary("floor")
ceil = _unary("ceil")
round = _unary("round")
floor_divide = _binary("floor_divide", 2)
remainder = _binary("remainder", 4)
sign = _unary("sign")
equal = _binary("equal", dtype=bool)
not_equal = _binary("not_equal", dtype=bool)
greater = _binary("greater", dtype=bool)
greater_equal = _binary("greater_equal", dtype=bool)
less = _binary("less", dtype=bool)
less_equal = _binary("less_equal", dtype=bool)
isnan = _unary("isnan", dtype=bool)
isinf = _unary("isinf", dtype=bool)
isfinite = _unary("isfinite", dtype=bool)
bitwise_not = _unary("bitwise_not")
bitwise_and = _binary("bitwise_and")
bitwise_or = _binary("bitwise_or")
bitwise_xor = _binary("bitwise_xor")
logical_and = _binary("logical_and", dtype=bool)
logical_not = _unary("logical_not", dtype=bool)
logical_or = _binary("logical_or", dtype=bool)


def clamp(x, low, high):
    return _elementwise("clamp", (x,), 2)


def erf(x):
    return result("erf", (x,), x.shape, x.dtype, 15)


def isclose(a, b, rtol, atol, equal_nan):
    return _elementwise("isclose", (a, b), 5, bool)


def where(condition, a, b):
    return _elementwise("where", (condition, a, b), 1)


def masked(x, mask):
    return _elementwise("masked", (x, mask), 1, x.dtype)


def relu(x):
    return _elementwise("relu", (x,), 1)


def relu_grad(grad, y):
    return _elementwise("relu_grad", (grad, y), 2)


def sigmoid(x):
    return _elementwise("sigmoid", (x,), 12)
