"""Division with whole quotients: maps, before which divisors that are integers are looked at."""

from minidl.kernels.cuda.arrays import contiguous
from minidl.kernels.cuda.elementwise import mapped
from minidl.kernels.cuda.kernel_launch import THREADS, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.refusals import Check, launch_checked, refuse
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["floor_divide", "remainder"]


SENTENCE = "an integer is divided by 0"
DIVISION_BY_0 = Check(ZeroDivisionError, SENTENCE, lambda: SENTENCE)


@cuda.jit
def note_zeros(word, number, x, count):
    """One thread an element."""
    count, i, step = unsigned(count), column(), columns()
    while i < count:
        if not x[i]:
            refuse(word, number, 0)
        i = unsigned(i + step)


def floor_divide(a, b):
    """floor(a / b); ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return mapped("floor_divide", a, b)


def remainder(a, b):
    """a - floor(a / b) b; ZeroDivisionError where an integer is divided by 0."""
    _refuse_zero(a, b)
    return mapped("remainder", a, b)


def _refuse_zero(a, b):
    if b.dtype.kind == "f" or not a.size or not b.size:
        return
    launch_checked(DIVISION_BY_0, note_zeros, over(b.size), THREADS, contiguous(b), b.size)
