"""Division with whole quotients: maps, before which divisors that are integers are looked at."""

from minidl.kernels.cuda.arrays import to_numpy
from minidl.kernels.cuda.elementwise import mapped
from minidl.kernels.cuda.reduction import all

__all__ = ["floor_divide", "remainder"]


def floor_divide(a, b):
    """floor(a / b); ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return mapped("floor_divide", a, b)


def remainder(a, b):
    """a - floor(a / b) b; ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return mapped("remainder", a, b)


def _refuse_zero(a, b):
    """Waits for the GPU, if they are integers."""
    if b.dtype.kind != "f" and a.size and not to_numpy(all(b, None, False)):
        raise ZeroDivisionError("an integer is divided by 0")
