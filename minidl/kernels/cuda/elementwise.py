"""Elementwise functions: a map of up to three arrays, over a table of functions of numbers.

Those of two arguments broadcast; one may be a plain number. Threads go along the last dimension, so that
neighbours read neighbours, and on to the next elements in strides of the whole grid (Harris 2013, "Write Flexible
Kernels with Grid-Stride Loops"). Dimensions that lie on end are one: contiguous arrays of any shape are one row.
"""

import functools
from collections.abc import Callable

import numpy as np

from minidl.kernels import memory_order
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.kernel_launch import block_for, collapsed, launch, over_rows, padded
from minidl.kernels.cuda.places import column, columns, place, row, rows
from minidl.kernels.cuda.scalars import TURNED, scalar
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = [
    "absolute", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "clamp", "cos", "divide",
    "equal", "erf", "exp", "expm1", "floor", "gelu", "gelu_grad", "greater", "greater_equal", "isclose",
    "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log1p", "log2", "logical_and", "logical_not",
    "logical_or", "masked", "maximum", "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad",
    "round", "sigmoid", "sign", "sin", "sqrt", "subtract", "tanh", "where",
]  # fmt: skip


# The kernels


def map0(f):
    @cuda.jit
    def kernel(out, count, width, shape, to, to_next, numbers):
        count, width, to_next = unsigned(count), unsigned(width), unsigned(to_next)
        i = row()
        while i < count:
            o, j = place(i, shape, to), column()
            while j < width:
                out[unsigned(o + j * to_next)] = f(*numbers)
                j = unsigned(j + columns())
            i = unsigned(i + rows())

    return kernel


def map1(f):
    @cuda.jit
    def kernel(out, a, count, width, shape, to, of_a, to_next, next_a, numbers):
        count, width, to_next, next_a = unsigned(count), unsigned(width), unsigned(to_next), unsigned(next_a)
        i = row()
        while i < count:
            o, k, j = place(i, shape, to), place(i, shape, of_a), column()
            while j < width:
                out[unsigned(o + j * to_next)] = f(a[unsigned(k + j * next_a)], *numbers)
                j = unsigned(j + columns())
            i = unsigned(i + rows())

    return kernel


def map2(f):
    @cuda.jit
    def kernel(out, a, b, count, width, shape, to, of_a, of_b, to_next, next_a, next_b, numbers):
        count, width, to_next = unsigned(count), unsigned(width), unsigned(to_next)
        next_a, next_b = unsigned(next_a), unsigned(next_b)
        i = row()
        while i < count:
            o, k, m, j = place(i, shape, to), place(i, shape, of_a), place(i, shape, of_b), column()
            while j < width:
                out[unsigned(o + j * to_next)] = f(a[unsigned(k + j * next_a)], b[unsigned(m + j * next_b)], *numbers)
                j = unsigned(j + columns())
            i = unsigned(i + rows())

    return kernel


def map3(f):
    @cuda.jit
    def kernel(
        out, a, b, c, count, width, shape, to, of_a, of_b, of_c, to_next, next_a, next_b, next_c, numbers
    ):  # fmt: skip
        count, width, to_next = unsigned(count), unsigned(width), unsigned(to_next)
        next_a, next_b, next_c = unsigned(next_a), unsigned(next_b), unsigned(next_c)
        i = row()
        while i < count:
            o, k, j = place(i, shape, to), place(i, shape, of_a), column()
            m, n = place(i, shape, of_b), place(i, shape, of_c)
            while j < width:
                x, y, z = a[unsigned(k + j * next_a)], b[unsigned(m + j * next_b)], c[unsigned(n + j * next_c)]
                out[unsigned(o + j * to_next)] = f(x, y, z, *numbers)
                j = unsigned(j + columns())
            i = unsigned(i + rows())

    return kernel


@functools.cache
def _kernel(inputs: int, name: str, F: type):
    return (map0, map1, map2, map3)[inputs](scalar(name, F))


# Launching them


def mapped(name: str, *inputs: CudaArray, numbers: tuple = (), dtype=None) -> CudaArray:
    """A new array of `dtype` (that of the inputs): the function `name` of the elements of the inputs, which
    broadcast."""
    shape = inputs[0].shape
    if any(x.shape != shape for x in inputs):
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
    found = inputs[0].dtype
    if any(x.dtype != found for x in inputs):  # a mask and numbers
        found = np.result_type(*(x.dtype for x in inputs))
    out = CudaArray(shape, dtype or found, strides=_order(inputs, shape))
    map_into(name, out, *inputs, numbers=numbers, F=found.type)
    return out


def map_into(name: str, out: CudaArray, *inputs: CudaArray, numbers: tuple = (), F: type | None = None) -> None:
    """out[...] = the function `name` of the inputs, which broadcast to the shape of `out`."""
    if not out.size:
        return
    F = F or out.dtype.type
    arrays = [out.strides, *(broadcast_strides(x, out.shape) for x in inputs)]
    order = sorted(range(out.ndim), key=lambda d: -out.strides[d])
    shape = tuple(out.shape[d] for d in order)
    shape, steps = collapsed(shape, *(tuple(s[d] for d in order) for s in arrays))
    *outer, width = shape
    rows = out.size // width
    block = block_for(width)
    launch(
        _kernel(len(inputs), name, F), over_rows(rows, width, block), block, out, *inputs, rows, width,
        padded(outer, 1), *((*padded(s[:-1], 0), x.first) for x, s in zip((out, *inputs), steps, strict=True)),
        *(s[-1] for s in steps),
        tuple(F(number) for number in numbers),
    )  # fmt: skip


def broadcast_strides(x: CudaArray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """How far the elements of x lie apart where it is stretched to `shape`."""
    if x.shape == shape:
        return x.strides
    added = len(shape) - x.ndim
    return (*(0,) * added, *(0 if n == 1 else step for n, step in zip(x.shape, x.strides, strict=True)))


def _order(inputs: tuple[CudaArray, ...], shape: tuple[int, ...]) -> memory_order.Strides:
    """The order of memory that NumPy would choose."""
    if all(x.contiguous for x in inputs):
        return None
    return memory_order.elementwise([(x.shape, x.strides) for x in inputs], shape)


def _unary(name: str, dtype=None) -> Callable:
    return lambda x: mapped(name, x, dtype=dtype)


def _binary(name: str, dtype=None) -> Callable:
    def function(a, b):
        if not isinstance(b, CudaArray):
            return mapped(name, a, numbers=(b,), dtype=dtype)
        if not isinstance(a, CudaArray):
            return mapped(name + TURNED, b, numbers=(a,), dtype=dtype)
        return mapped(name, a, b, dtype=dtype)

    return function


add, subtract, multiply, divide = map(_binary, ("add", "subtract", "multiply", "divide"))
power, maximum, minimum = map(_binary, ("power", "maximum", "minimum"))
negative, exp, expm1, log, log1p, log2 = map(_unary, ("negative", "exp", "expm1", "log", "log1p", "log2"))
sqrt, tanh, absolute, sin, cos, erf = map(_unary, ("sqrt", "tanh", "absolute", "sin", "cos", "erf"))
floor, ceil, round, sign, sigmoid, relu = map(_unary, ("floor", "ceil", "round", "sign", "sigmoid", "relu"))
bitwise_not = _unary("bitwise_not")
bitwise_and, bitwise_or, bitwise_xor = map(_binary, ("bitwise_and", "bitwise_or", "bitwise_xor"))
equal, not_equal = _binary("equal", bool), _binary("not_equal", bool)
greater, greater_equal = _binary("greater", bool), _binary("greater_equal", bool)
less, less_equal = _binary("less", bool), _binary("less_equal", bool)
isnan, isinf, isfinite = _unary("isnan", bool), _unary("isinf", bool), _unary("isfinite", bool)
logical_and, logical_or, logical_not = (
    _binary("logical_and", bool),
    _binary("logical_or", bool),
    _unary("logical_not", bool),
)


def clamp(x, low, high):
    """x, or the nearer of the numbers low and high (None for no bound) where it lies outside."""
    if low is None:
        return mapped("clamp_high", x, numbers=(high,))
    if high is None:
        return mapped("clamp_low", x, numbers=(low,))
    return mapped("clamp", x, numbers=(low, high))


def isclose(a, b, rtol, atol, equal_nan):
    return mapped("isclose", a, b, numbers=(rtol, atol, equal_nan), dtype=bool)


def where(condition, a, b):
    """a where the bools `condition` are true, else b; one of them may be a number."""
    if not isinstance(b, CudaArray):
        return mapped("where", condition, a, numbers=(b,))
    if not isinstance(a, CudaArray):
        return mapped("where, of a number", condition, b, numbers=(a,))
    return mapped("where", condition, a, b)


def masked(x, mask):
    """x where the bools `mask` are true, else 0, with broadcasting; a NaN or infinity is masked like any number."""
    return mapped("masked", x, mask)


def relu_grad(grad, y):
    """`grad` where the output `y` of relu is not 0, so where it is NaN too."""
    return mapped("relu_grad", grad, y)


def gelu(x, approximate):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016); approximate: "none" or "tanh"."""
    return mapped(f"gelu_{approximate}", x)


def gelu_grad(grad, x, approximate):
    return mapped(f"gelu_{approximate}_grad", grad, x)
