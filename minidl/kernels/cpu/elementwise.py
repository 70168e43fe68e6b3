"""Elementwise functions, each a new array. Those of two arguments broadcast; the second may be a plain number."""

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.images import in_order_of

__all__ = [
    "absolute", "add", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "ceil", "clamp", "cos", "divide",
    "equal", "exp", "expm1", "floor", "floor_divide", "greater", "greater_equal", "isclose", "isfinite", "isinf",
    "isnan", "less", "less_equal", "log", "log1p", "log2", "logical_and", "logical_not", "logical_or", "masked",
    "maximum", "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad", "remainder", "round",
    "sigmoid", "sign", "sin", "sqrt", "subtract", "tanh", "where",
]  # fmt: skip


def _unary(function, text):
    """The kernel x -> function(x), said to be `text`, of a function of NumPy's.

    It gives an array always: NumPy makes a scalar of a result without dimensions.
    """

    def kernel(x):
        return np.asarray(function(x))

    kernel.__name__, kernel.__doc__ = function.__name__, text
    return kernel


def _binary(function, text):
    """As `_unary`, of two arguments."""

    def kernel(a, b):
        return np.asarray(function(a, b))

    kernel.__name__, kernel.__doc__ = function.__name__, text
    return kernel


add, subtract, multiply, divide, negative, exp = np.add, np.subtract, np.multiply, np.true_divide, np.negative, np.exp
power = _binary(np.power, "a to the power of b.")
maximum = _binary(np.maximum, "The larger of a and b, NaN if one is.")
minimum = _binary(np.minimum, "The smaller of a and b, NaN if one is.")
expm1 = _unary(np.expm1, "exp(x) - 1, exact for small x.")
log = _unary(np.log, "The natural logarithm of x.")
log1p = _unary(np.log1p, "log(1 + x), exact for small x.")
log2 = _unary(np.log2, "The logarithm of x to base 2.")
sqrt = _unary(np.sqrt, "The square root of x.")
tanh = _unary(np.tanh, "The hyperbolic tangent of x.")
sin = _unary(np.sin, "The sine of x, in radians.")
cos = _unary(np.cos, "The cosine of x, in radians.")
absolute = _unary(np.absolute, "|x|.")
floor = _unary(np.floor, "The largest whole number that is not above x.")
ceil = _unary(np.ceil, "The smallest whole number that is not below x.")
round = _unary(np.round, "x rounded, halves to the even number.")
equal = _binary(np.equal, "a == b: bools.")
not_equal = _binary(np.not_equal, "a != b: bools.")
greater = _binary(np.greater, "a > b: bools.")
greater_equal = _binary(np.greater_equal, "a >= b: bools.")
less = _binary(np.less, "a < b: bools.")
less_equal = _binary(np.less_equal, "a <= b: bools.")
isnan = _unary(np.isnan, "Whether x is NaN: bools.")
isinf = _unary(np.isinf, "Whether x is infinite, of either sign: bools.")
isfinite = _unary(np.isfinite, "Whether x is neither NaN nor infinite: bools.")
bitwise_not = _unary(np.bitwise_not, "The bits that x has not.")
bitwise_and = _binary(np.bitwise_and, "The bits that a and b both have.")
bitwise_or = _binary(np.bitwise_or, "The bits that a or b has.")
bitwise_xor = _binary(np.bitwise_xor, "The bits that either a or b has.")
logical_not = _unary(np.logical_not, "Whether x is 0: bools.")
logical_and = _binary(np.logical_and, "Whether neither a nor b is 0: bools.")
logical_or = _binary(np.logical_or, "Whether a or b is not 0: bools.")


def sign(x):
    """-1, 0 or 1; 0 where x is NaN, as in PyTorch."""
    return np.asarray(np.subtract(x > 0, x < 0, dtype=x.dtype) if x.dtype.kind != "b" else x)


def floor_divide(a, b):
    """floor(a / b); ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return np.asarray(np.floor_divide(a, b))


def remainder(a, b):
    """a - floor(a / b) b; ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return np.asarray(np.remainder(a, b))


def _refuse_zero(a, b):
    if b.dtype.kind != "f" and a.size and not b.all():
        raise ZeroDivisionError("an integer is divided by 0")


def clamp(x, low, high):
    """x, or the nearer of the numbers low and high (None for no bound) where it lies outside."""
    return np.asarray(np.clip(x, low, high))


def isclose(a, b, rtol, atol, equal_nan):
    """Whether |a - b| <= atol + rtol |b|: bools, with broadcasting. equal_nan: NaN is close to NaN."""
    return np.asarray(np.isclose(a, b, rtol, atol, equal_nan))


BRANCH_FREE_FROM = 1 << 14  # elements: below, np.where is quicker


def where(condition, a, b):
    """a where the bools `condition` are true, else b; many of them by bits, which is several times quicker."""
    if condition.size < BRANCH_FREE_FROM:
        return np.where(condition, a, b)
    dtype = np.result_type(a, b)
    mask = np.negative(condition.view(np.int8), dtype=BITS[dtype.itemsize])
    a, b = (np.asarray(x, dtype).view(mask.dtype) for x in (a, b))
    out = np.bitwise_and(a ^ b, mask)
    return np.bitwise_xor(out, b, out=out).view(dtype)


def relu(x):
    """x where it is positive or NaN, else 0."""
    if fast.use_compiled(x):
        return fast.elementwise.relu(x)
    return np.maximum(x, 0, out=np.empty_like(x))


def relu_grad(grad, y):
    """`grad` where the output `y` of relu, of the same shape, is not 0, so where it is NaN too."""
    if fast.use_compiled(y):
        return fast.elementwise.relu_grad(in_order_of(y, grad), y)
    return _keep(grad, np.subtract((y <= 0).view(np.int8), 1, dtype=BITS[grad.dtype.itemsize]))


BITS = {1: np.int8, 4: np.int32, 8: np.int64}


def _keep(x, bits):
    """x where bits is -1 and 0 where it is 0: as quick as a product, but NaN gives 0; np.where is 10 times slower."""
    return np.asarray(np.bitwise_and(x.view(bits.dtype), bits)).view(x.dtype)


def masked(x, mask):
    """x where the bools `mask` are true, else 0, with broadcasting; a NaN or infinity is masked like any number."""
    return _keep(x, np.negative(mask.view(np.int8), dtype=BITS[x.dtype.itemsize]))


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: its inverse is 0, as it should be
        y = np.asarray(np.exp(np.negative(x)))
    y += 1
    return np.divide(1, y, out=y)
