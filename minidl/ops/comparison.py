"""Comparisons and logic, elementwise with broadcasting; they give bool tensors and have no derivative."""

from minidl.dtypes import bool_
from minidl.ops.promotion import one_device, pair
from minidl.ops.shape import cast
from minidl.tensor import Tensor


def _compare(name, kernel, a, b):
    a, b = pair(name, a, b)
    return Tensor(getattr(one_device(name, a, b), kernel)(a.data, b.data))


def eq(a, b) -> Tensor:
    """Whether a == b, elementwise; either may be a number."""
    return _compare("eq", "equal", a, b)


def ne(a, b) -> Tensor:
    """Whether a != b, elementwise; either may be a number."""
    return _compare("ne", "not_equal", a, b)


def gt(a, b) -> Tensor:
    """Whether a > b, elementwise; either may be a number."""
    return _compare("gt", "greater", a, b)


def ge(a, b) -> Tensor:
    """Whether a >= b, elementwise; either may be a number."""
    return _compare("ge", "greater_equal", a, b)


def lt(a, b) -> Tensor:
    """Whether a < b, elementwise; either may be a number."""
    return _compare("lt", "less", a, b)


def le(a, b) -> Tensor:
    """Whether a <= b, elementwise; either may be a number."""
    return _compare("le", "less_equal", a, b)


# One answer for the whole tensors


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether a and b have the same shape and the same elements; elementwise it is `eq`."""
    return a.shape == b.shape and eq(a, b).numpy().all().item()


def isclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |a - b| <= atol + rtol |b|, elementwise; equal infinities are close, with equal_nan also two NaNs."""
    a, b = pair("isclose", a, b)
    return Tensor(one_device("isclose", a, b).isclose(a.data, b.data, rtol, atol, equal_nan))


def allclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements of a and b are close: see `isclose`."""
    return isclose(a, b, rtol, atol, equal_nan).numpy().all().item()


# Not finite


def isnan(x: Tensor) -> Tensor:
    """Whether x is NaN, elementwise."""
    return Tensor(x.kernels.isnan(x.data))


def isinf(x: Tensor) -> Tensor:
    """Whether x is infinite, elementwise."""
    return Tensor(x.kernels.isinf(x.data))


def isfinite(x: Tensor) -> Tensor:
    """Whether x is neither NaN nor infinite, elementwise."""
    return Tensor(x.kernels.isfinite(x.data))


# Logic


def logical_not(x: Tensor) -> Tensor:
    """Whether x is false or 0, elementwise."""
    return Tensor(x.kernels.logical_not(x.data))


def logical_and(a: Tensor, b: Tensor) -> Tensor:
    """Whether a and b are true or not 0, elementwise."""
    return _compare("logical_and", "logical_and", cast(a, bool_), cast(b, bool_))


def logical_or(a: Tensor, b: Tensor) -> Tensor:
    """Whether a or b or both are true or not 0, elementwise."""
    return _compare("logical_or", "logical_or", cast(a, bool_), cast(b, bool_))


def logical_xor(a: Tensor, b: Tensor) -> Tensor:
    """Whether one of a and b is true or not 0 and the other not, elementwise."""
    return _compare("logical_xor", "not_equal", cast(a, bool_), cast(b, bool_))


def _bitwise(name, a, b):
    _refuse_floats(name, a, b)
    return _compare(name, name, a, b)


def _refuse_floats(name, *operands):
    if any(isinstance(x, Tensor) and x.dtype.kind == "f" or isinstance(x, float) for x in operands):
        raise TypeError(f"{name} needs bools or integers, not floats")


def bitwise_not(x: Tensor) -> Tensor:
    """~x: not, for bools; the complement of the bits of integers."""
    _refuse_floats("bitwise_not", x)
    return Tensor(x.kernels.bitwise_not(x.data))


def bitwise_and(a, b) -> Tensor:
    """a & b: and, for bools; bit by bit for integers; either may be a number."""
    return _bitwise("bitwise_and", a, b)


def bitwise_or(a, b) -> Tensor:
    """a | b: or, for bools; bit by bit for integers; either may be a number."""
    return _bitwise("bitwise_or", a, b)


def bitwise_xor(a, b) -> Tensor:
    """a ^ b: one or the other, for bools; bit by bit for integers; either may be a number."""
    return _bitwise("bitwise_xor", a, b)
