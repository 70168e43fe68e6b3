"""Elementwise functions: shapes and costs. A transcendental function counts as 10 FLOPs."""

from functools import wraps

import numpy as np

from minidl.kernels import cpu
from minidl.kernels.algorithms import is_compiled
from minidl.kernels.memory_order import broadcast
from minidl.kernels.meta.record import MetaArray, elementwise_strides, result

__all__ = [
    "absolute", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "clamp", "cos", "divide",
    "equal", "erf", "exp", "expm1", "floor", "floor_divide", "gelu", "gelu_grad", "greater", "greater_equal", "isclose",
    "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log1p", "log2", "logical_and", "logical_not",
    "logical_or", "masked", "maximum", "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad",
    "remainder", "round", "sigmoid", "sign", "sin", "sqrt", "subtract", "tanh", "where",
]  # fmt: skip


def twin(name, flops=1, dtype=None, kind="elementwise"):
    """What costs `flops` an element, and takes what the CPU's kernel `name` takes."""
    return wraps(getattr(cpu, name))(lambda *arguments: _elementwise(name, arguments, flops, dtype, kind))


def _unary(name, flops=1, dtype=None):
    return lambda x: _elementwise(name, (x,), flops, dtype)


def _binary(name, flops=1, dtype=None):
    return lambda a, b: _elementwise(name, (a, b), flops, dtype)


def _elementwise(name, arguments, flops, dtype, kind="elementwise"):
    """A new array of the shape to which those among the arguments broadcast; the others are options, or numbers."""
    arrays = [x for x in arguments if isinstance(x, MetaArray)]
    shape = arrays[0].shape if len(arrays) == 1 else broadcast(*(x.shape for x in arrays))
    found = arrays[0].dtype
    if any(x.dtype != found for x in arrays):  # a mask and numbers
        found = np.result_type(*(x.dtype for x in arrays))
    return result(name, arrays, shape, dtype or found, flops, strides=elementwise_strides(arrays, shape), kind=kind)


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
relu = _unary("relu")
relu_grad = twin("relu_grad", 2)
sigmoid = _unary("sigmoid", 12)
clamp = twin("clamp", 2)
where = twin("where")
masked = twin("masked")
isclose = twin("isclose", 5, bool)


def erf(x):
    return result("erf", (x,), x.shape, x.dtype, 15)


def gelu(x, approximate):
    return _in_blocks("gelu", (x,), x, 16)


def gelu_grad(grad, x, approximate):
    return _in_blocks("gelu_grad", (grad, x), x, 24)


def _in_blocks(name, arrays, x, flops):
    """In the order of memory of the arrays where it is compiled; contiguous where it is made block by block."""
    strides = elementwise_strides(arrays, x.shape) if is_compiled(x.size, x.dtype) else None
    return result(name, arrays, x.shape, x.dtype, flops, strides=strides)
