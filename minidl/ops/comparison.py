"""Comparisons and logic, elementwise with broadcasting; they give bool tensors and have no derivative."""

from minidl.ops.arithmetic import pair
from minidl.tensor import Tensor


def _compare(name, a, b):
    a, b = pair(name, a, b)
    return Tensor(getattr(a.kernels, name)(a.data, b.data))


def equal(a, b) -> Tensor:
    """Whether a == b, elementwise; either may be a number."""
    return _compare("equal", a, b)


def not_equal(a, b) -> Tensor:
    """Whether a != b, elementwise; either may be a number."""
    return _compare("not_equal", a, b)


def greater(a, b) -> Tensor:
    """Whether a > b, elementwise; either may be a number."""
    return _compare("greater", a, b)


def greater_equal(a, b) -> Tensor:
    """Whether a >= b, elementwise; either may be a number."""
    return _compare("greater_equal", a, b)


def less(a, b) -> Tensor:
    """Whether a < b, elementwise; either may be a number."""
    return _compare("less", a, b)


def less_equal(a, b) -> Tensor:
    """Whether a <= b, elementwise; either may be a number."""
    return _compare("less_equal", a, b)


def isnan(x: Tensor) -> Tensor:
    """Whether x is NaN, elementwise."""
    return Tensor(x.kernels.isnan(x.data))


def logical_not(x: Tensor) -> Tensor:
    """Whether x is false or 0, elementwise."""
    return Tensor(x.kernels.logical_not(x.data))


def logical_or(a, b) -> Tensor:
    """Whether a or b or both are true or not 0, elementwise; either may be a number."""
    return _compare("logical_or", a, b)
