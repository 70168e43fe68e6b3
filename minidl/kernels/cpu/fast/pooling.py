"""The kernels of pooling.py compiled, for float32.

Images x (n, height, width, c), pooled y and which (n, out_height, out_width, c). A window holds the elements
row_starts[i], row_starts[i] + row_step, … below row_stops[i] of the rows, likewise of the columns.
"""

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.images import by_image
from minidl.kernels.pooling_windows import places_dtype


def max_pool2d(x, rows, columns):
    shape = (x.shape[0], len(rows), len(columns), x.shape[3])
    y, which = np.empty(shape, x.dtype), np.empty(shape, places_dtype(rows, columns))
    if rows.all_hold(2) and columns.all_hold(2):
        starts = rows.starts, columns.starts
        by_image(x, lambda part: _max_pool2d_two_by_two(x[part], *starts, y[part], which[part]))
    else:
        table = _table(rows, columns)
        by_image(x, lambda part: _max_pool2d(x[part], *table, columns.length, y[part], which[part]))
    return y, which


def max_pool2d_grad(grad, which, rows, columns, out):
    """out: of zeros."""
    table = *_table(rows, columns), columns.length, rows.overlap or columns.overlap
    by_image(out, lambda part: _max_pool2d_grad(grad[part], which[part], *table, out[part]))


def avg_pool2d(x, rows, columns, share, y):
    """y: of zeros."""
    table = _table(rows, columns)
    by_image(x, lambda part: _avg_pool2d(x[part], *table, share, y[part]))


def avg_pool2d_grad(grad, rows, columns, share, out):
    """out: of zeros."""
    table = _table(rows, columns)
    by_image(out, lambda part: _avg_pool2d_grad(grad[part], *table, share, out[part]))


def _table(*dims):
    return [number for windows in dims for number in (windows.starts, windows.stops, windows.step)]


@njit(fastmath=FLAGS)
def _max_pool2d(x, row_starts, row_stops, row_step, column_starts, column_stops, column_step, width, y, which):
    n, out_height, out_width, channels = y.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                best, place = y[b, i, j], which[b, i, j]
                best[:] = -np.inf
                place[:] = 0
                for a, r in enumerate(range(row_starts[i], row_stops[i], row_step)):
                    for k, s in enumerate(range(column_starts[j], column_stops[j], column_step), a * width):
                        element = x[b, r, s]
                        for c in range(channels):
                            better = (element[c] > best[c]) | (element[c] != element[c])
                            best[c] = element[c] if better else best[c]
                            place[c] = k if better else place[c]


@njit(fastmath=FLAGS)
def _max_pool2d_two_by_two(x, row_starts, column_starts, y, which):
    """The same for windows of two by two, five times faster: each result is written once."""
    n, out_height, out_width, channels = y.shape
    for b in range(n):
        for i in range(out_height):
            r = row_starts[i]
            for j in range(out_width):
                s = column_starts[j]
                best, place = y[b, i, j], which[b, i, j]
                first, second, third, fourth = x[b, r, s], x[b, r, s + 1], x[b, r + 1, s], x[b, r + 1, s + 1]
                for c in range(channels):
                    m, k = first[c], np.uint8(0)
                    better = (second[c] > m) | (second[c] != second[c])
                    m, k = second[c] if better else m, np.uint8(1) if better else k
                    better = (third[c] > m) | (third[c] != third[c])
                    m, k = third[c] if better else m, np.uint8(2) if better else k
                    better = (fourth[c] > m) | (fourth[c] != fourth[c])
                    best[c], place[c] = fourth[c] if better else m, np.uint8(3) if better else k


@njit(fastmath=FLAGS)
def _max_pool2d_grad(
    grad, which, row_starts, row_stops, row_step, column_starts, column_stops, column_step, width, overlap, out
):
    n, out_height, out_width, channels = grad.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                g, place = grad[b, i, j], which[b, i, j]
                for a, r in enumerate(range(row_starts[i], row_stops[i], row_step)):
                    for k, s in enumerate(range(column_starts[j], column_stops[j], column_step), a * width):
                        element = out[b, r, s]
                        if overlap:
                            for c in range(channels):
                                element[c] += g[c] if place[c] == k else np.float32(0)
                        else:  # it is zero
                            for c in range(channels):
                                element[c] = g[c] if place[c] == k else np.float32(0)


@njit(fastmath=FLAGS)
def _avg_pool2d(x, row_starts, row_stops, row_step, column_starts, column_stops, column_step, share, y):
    """y: of zeros."""
    n, out_height, out_width, channels = y.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                total = y[b, i, j]
                for r in range(row_starts[i], row_stops[i], row_step):
                    for s in range(column_starts[j], column_stops[j], column_step):
                        element = x[b, r, s]
                        for c in range(channels):
                            total[c] += element[c]
                for c in range(channels):
                    total[c] *= share[i, j]


@njit(fastmath=FLAGS)
def _avg_pool2d_grad(grad, row_starts, row_stops, row_step, column_starts, column_stops, column_step, share, out):
    """out: of zeros."""
    n, out_height, out_width, channels = grad.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                g, part = grad[b, i, j], share[i, j]
                for r in range(row_starts[i], row_stops[i], row_step):
                    for s in range(column_starts[j], column_stops[j], column_step):
                        element = out[b, r, s]
                        for c in range(channels):
                            element[c] += g[c] * part
