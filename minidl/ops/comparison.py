"""Comparisons and logic, elementwise with broadcasting; they give bool tensors and have no derivative."""

from collections.abc import Callable

from minidl.dtypes import bool_
from minidl.ops.promotion import one_device, pair
from minidl.ops.shape import cast
from minidl.tensor import Tensor


def _of_two(name: str, kernel: str, doc: str, prepare: Callable | None = None) -> Callable[..., Tensor]:
    """The function `name` of two operands, brought to one dtype; prepare(name, x): what to do with each before."""

    def function(a, b) -> Tensor:
        if prepare is not None:
            a, b = prepare(name, a), prepare(name, b)
        a, b = pair(name, a, b)
        return Tensor(getattr(one_device(name, a, b), kernel)(a.data, b.data))

    return _named(function, name, doc)


def _of_one(name: str, doc: str, prepare: Callable | None = None) -> Callable[[Tensor], Tensor]:
    """The function of a tensor that calls the kernel `name`."""

    def function(x: Tensor) -> Tensor:
        if prepare is not None:
            x = prepare(name, x)
        return Tensor(getattr(x.kernels, name)(x.data))

    return _named(function, name, doc)


def _named(function: Callable, name: str, doc: str) -> Callable:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _to_bools(name: str, x):
    return cast(x, bool_)


def _no_floats(name: str, x):
    if isinstance(x, Tensor) and x.dtype.kind == "f" or isinstance(x, float):
        raise TypeError(f"{name} needs bools or integers, not floats")
    return x


eq = _of_two("eq", "equal", "Whether a == b, elementwise; either may be a number.")
ne = _of_two("ne", "not_equal", "Whether a != b, elementwise; either may be a number.")
gt = _of_two("gt", "greater", "Whether a > b, elementwise; either may be a number.")
ge = _of_two("ge", "greater_equal", "Whether a >= b, elementwise; either may be a number.")
lt = _of_two("lt", "less", "Whether a < b, elementwise; either may be a number.")
le = _of_two("le", "less_equal", "Whether a <= b, elementwise; either may be a number.")

isnan = _of_one("isnan", "Whether x is NaN, elementwise.")
isinf = _of_one("isinf", "Whether x is infinite, elementwise.")
isfinite = _of_one("isfinite", "Whether x is neither NaN nor infinite, elementwise.")

logical_not = _of_one("logical_not", "Whether x is false or 0, elementwise.")
logical_and = _of_two("logical_and", "logical_and", "Whether a and b are true or not 0, elementwise.", _to_bools)
logical_or = _of_two("logical_or", "logical_or", "Whether a or b or both are true or not 0, elementwise.", _to_bools)
logical_xor = _of_two(
    "logical_xor", "not_equal", "Whether one of a and b is true or not 0 and the other not, elementwise.", _to_bools
)

bitwise_not = _of_one("bitwise_not", "~x: not, for bools; the complement of the bits of integers.", _no_floats)
bitwise_and = _of_two(
    "bitwise_and", "bitwise_and", "a & b: and, for bools; bit by bit for integers; either may be a number.", _no_floats
)
bitwise_or = _of_two(
    "bitwise_or", "bitwise_or", "a | b: or, for bools; bit by bit for integers; either may be a number.", _no_floats
)
bitwise_xor = _of_two(
    "bitwise_xor", "bitwise_xor",
    "a ^ b: one or the other, for bools; bit by bit for integers; either may be a number.", _no_floats,
)  # fmt: skip


def isclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |a - b| <= atol + rtol |b|, elementwise; equal infinities are close, with equal_nan also two NaNs."""
    a, b = pair("isclose", a, b)
    return Tensor(one_device("isclose", a, b).isclose(a.data, b.data, rtol, atol, equal_nan))


# One answer for the whole tensors


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether a and b have the same shape and the same elements; elementwise it is `eq`."""
    return a.shape == b.shape and eq(a, b).numpy().all().item()


def allclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements of a and b are close: see `isclose`."""
    return isclose(a, b, rtol, atol, equal_nan).numpy().all().item()
