"""Pooling of images (batch, channels, height, width): a thread for each element of the result.

Neighbours in a row of the result are neighbouring threads, whose windows lie side by side: they read neighbours, and
where windows overlap, what others have just read. Backward a thread gathers what its element of the input gets from the
windows that hold it, few or one: each element is written once, in one order, and nothing need be filled with zeros
first. Scattering from the windows would take atomic additions where they overlap, whose order is never the same twice.
"""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import array, contiguous
from minidl.kernels.cuda.device_memory import pool
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.target import cuda, unsigned
from minidl.kernels.pooling_windows import Windows, places_dtype

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad", "max_pool2d_take"]


# What kernels are told of windows


@pool.remembers(128)
def table(windows: Windows) -> CudaArray:
    """One row of int32: starts, stops and divisors of all windows; then for each element of the dimension the first
    window that holds it, and then the one after the last."""
    first, after = np.full(windows.size, len(windows)), np.zeros(windows.size, int)
    for place in range(windows.length):
        index = windows.starts + place * windows.step
        (inside,) = np.nonzero(index < windows.stops)
        np.minimum.at(first, index[inside], inside)
        np.maximum.at(after, index[inside], inside + 1)
    parts = windows.starts, windows.stops, windows.divisors, first, after
    return array(np.concatenate(parts), np.int32)


def sizes(windows: Windows) -> tuple[int, int, int, int]:
    """(how many windows, size of the dimension, step between elements, elements of the longest window)."""
    return len(windows), windows.size, windows.step, windows.length


# The kernels


@cuda.jit(device=True)
def as_unsigned(numbers):
    a, b, c, d = numbers
    return unsigned(a), unsigned(b), unsigned(c), unsigned(d)


@cuda.jit(device=True)
def split(index, down, across):
    """The plane, the row and the column of element `index` of planes of `down` rows and `across` columns."""
    line = unsigned(index // across)
    return unsigned(line // down), unsigned(line % down), unsigned(index % across)


@functools.cache
def maximum(F: type):
    """y: the largest of each window, NaN if one is; which: its place in the window, row by row."""
    lowest = F(-math.inf)

    @cuda.jit
    def max_pooled(y, which, x, planes, rows, columns, of_rows, of_columns):
        down, height, step_y, _ = as_unsigned(of_rows)
        across, width, step_x, length = as_unsigned(of_columns)
        count, index, step = unsigned(planes * down * across), unsigned(cuda.grid(1)), unsigned(cuda.gridsize(1))
        while index < count:
            plane, i, j = split(index, down, across)
            a, end, first, end_of_line = rows[i], rows[unsigned(down + i)], columns[j], columns[unsigned(across + j)]
            best, found, line_of_window = lowest, unsigned(0), unsigned(0)
            while a < end:
                b, line, place = first, unsigned((plane * height + a) * width), line_of_window
                while b < end_of_line:
                    element = x[unsigned(line + b)]
                    if element > best or element != element:
                        best, found = element, place
                    b, place = np.int32(b + step_x), unsigned(place + 1)
                a, line_of_window = np.int32(a + step_y), unsigned(line_of_window + length)
            y[index], which[index] = best, found
            index = unsigned(index + step)

    return max_pooled


@functools.cache
def taken(F: type):
    """y: of each window of x the element at the place `which`; 0 if it has none there."""
    zero = F(0)

    @cuda.jit
    def taken_from_windows(y, which, x, planes, rows, columns, of_rows, of_columns):
        down, height, step_y, _ = as_unsigned(of_rows)
        across, width, step_x, length = as_unsigned(of_columns)
        count, index, step = unsigned(planes * down * across), unsigned(cuda.grid(1)), unsigned(cuda.gridsize(1))
        while index < count:
            plane, i, j = split(index, down, across)
            place = unsigned(which[index])
            a = unsigned(rows[i] + place // length * step_y)
            b = unsigned(columns[j] + place % length * step_x)
            inside = a < rows[unsigned(down + i)] and b < columns[unsigned(across + j)]
            y[index] = x[unsigned((plane * height + a) * width + b)] if inside else zero
            index = unsigned(index + step)

    return taken_from_windows


@functools.cache
def average(F: type):
    """y: the sum of each window over the divisors of its row and its column."""
    zero, one = F(0), F(1)

    @cuda.jit
    def averaged(y, x, planes, rows, columns, of_rows, of_columns):
        down, height, step_y, _ = as_unsigned(of_rows)
        across, width, step_x, _ = as_unsigned(of_columns)
        count, index, step = unsigned(planes * down * across), unsigned(cuda.grid(1)), unsigned(cuda.gridsize(1))
        while index < count:
            plane, i, j = split(index, down, across)
            a, end, first, end_of_line = rows[i], rows[unsigned(down + i)], columns[j], columns[unsigned(across + j)]
            total = zero
            while a < end:
                b, line = first, unsigned((plane * height + a) * width)
                part = zero  # sums of lines are added, so that large windows are summed like a tree of two levels
                while b < end_of_line:
                    part += x[unsigned(line + b)]
                    b = np.int32(b + step_x)
                total += part
                a = np.int32(a + step_y)
            y[index] = total * (one / F(rows[unsigned(2 * down + i)] * columns[unsigned(2 * across + j)]))
            index = unsigned(index + step)

    return averaged


def of_the_largest(F):
    """What an element gets of the gradient of a window: all if it is its largest element."""
    zero = F(0)
    return lambda grad, which, place, divisor: grad if which == place else zero


def a_share(F):
    """What an element gets of the gradient of a window: the part that it has in the average."""
    one = F(1)
    return lambda grad, which, place, divisor: grad * (one / F(divisor))


@functools.cache
def gathered(F: type, given):
    """out: for each element of the images what it gets of the gradients of the windows that hold it."""
    zero = F(0)
    get = cuda.jit(device=True)(given(F))

    @cuda.jit
    def gathered_from_windows(out, grad, which, planes, rows, columns, of_rows, of_columns):
        down, height, step_y, _ = as_unsigned(of_rows)
        across, width, step_x, length = as_unsigned(of_columns)
        count, index, step = unsigned(planes * height * width), unsigned(cuda.grid(1)), unsigned(cuda.gridsize(1))
        while index < count:
            plane, y, x = split(index, height, width)
            i, end = unsigned(rows[unsigned(3 * down + y)]), unsigned(rows[unsigned(3 * down + height + y)])
            first = unsigned(columns[unsigned(3 * across + x)])
            end_of_line = unsigned(columns[unsigned(3 * across + width + x)])
            total = zero
            while i < end:
                a = unsigned(y - rows[i])  # a large number if the window begins further down
                if y >= rows[i] and y < rows[unsigned(down + i)] and a % step_y == 0:
                    line, j = unsigned((plane * down + i) * across), first
                    while j < end_of_line:
                        b = unsigned(x - columns[j])
                        if x >= columns[j] and x < columns[unsigned(across + j)] and b % step_x == 0:
                            at, place = unsigned(line + j), unsigned(a // step_y * length + b // step_x)
                            divisor = rows[unsigned(2 * down + i)] * columns[unsigned(2 * across + j)]
                            total += get(grad[at], which[at], place, divisor)
                        j = unsigned(j + 1)
                i = unsigned(i + 1)
            out[index] = total
            index = unsigned(index + step)

    return gathered_from_windows


# Launching them


def _launch(kernel, out: CudaArray, *others: CudaArray, rows: Windows, columns: Windows) -> None:
    """others: what comes after `out`; one thread for each element of it."""
    if out.size:
        planes = math.prod(out.shape[:2])
        launch(
            kernel, over(out.size), THREADS, out, *others, planes, table(rows), table(columns), sizes(rows),
            sizes(columns),
        )  # fmt: skip


def max_pool2d(x, rows, columns):
    """x (n, c, height, width) -> the largest of each window, NaN if one is; and its place in the window (row-major)."""
    shape = (*x.shape[:2], len(rows), len(columns))
    y, which = CudaArray(shape, x.dtype), CudaArray(shape, places_dtype(rows, columns))
    _launch(maximum(x.dtype.type), y, which, contiguous(x), rows=rows, columns=columns)
    return y, which


def max_pool2d_grad(grad, which, rows, columns):
    """The gradient of the input: each element of `grad` goes to the largest of its window."""
    return _gathered(of_the_largest, grad, which, rows, columns)


def max_pool2d_take(x, which, rows, columns):
    """Of each window of x (n, c, height, width), the element at the place `which`; 0 if it has none there."""
    y = CudaArray(which.shape, x.dtype)
    _launch(taken(x.dtype.type), y, contiguous(which), contiguous(x), rows=rows, columns=columns)
    return y


def avg_pool2d(x, rows, columns):
    """x (n, c, height, width) -> the sum of each window over the divisors of its row and its column."""
    y = CudaArray((*x.shape[:2], len(rows), len(columns)), x.dtype)
    _launch(average(x.dtype.type), y, contiguous(x), rows=rows, columns=columns)
    return y


def avg_pool2d_grad(grad, rows, columns):
    """The gradient of the input: each element of `grad`, over the divisors, goes to all of its window."""
    return _gathered(a_share, grad, grad, rows, columns)


def _gathered(given, grad, which, rows, columns):
    out = CudaArray((*grad.shape[:2], rows.size, columns.size), grad.dtype)
    _launch(
        gathered(grad.dtype.type, given), out, contiguous(grad), contiguous(which), rows=rows, columns=columns
    )  # fmt: skip
    return out
