"""Pooling of images (batch, channels, height, width): inside, channels come last, as in convolution.py.

Which windows there are along the rows and along the columns of an image is said by two `Windows`.
"""

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.images import channels_first, channels_last
from minidl.kernels.pooling_windows import places_dtype

__all__ = ["avg_pool2d", "avg_pool2d_grad", "max_pool2d", "max_pool2d_grad", "max_pool2d_take"]


def max_pool2d(x, rows, columns):
    """The largest element of each window, NaN if one is; and its place in the window, row by row.

    x (n, c, height, width) -> (n, c, len(rows), len(columns)) twice, the places of `places_dtype`.
    """
    x = channels_last(x)
    if fast.use_compiled(x):
        y, which = fast.pooling.max_pool2d(x, rows, columns)
    else:
        shape = (x.shape[0], len(rows), len(columns), x.shape[3])
        y, which = np.full(shape, -np.inf, x.dtype), np.zeros(shape, places_dtype(rows, columns))
        for place, index, inside in _elements(rows, columns):
            element = x[index[0]][index[1]]
            better = _masked((element > y) | np.isnan(element), inside)
            np.copyto(which, place, where=better, casting="unsafe")
            np.copyto(y, element, where=better)
    return channels_first(y), channels_first(which)


def max_pool2d_grad(grad, which, rows, columns):
    """The gradient of the input: each element of `grad` goes to the largest of its window.

    grad and which (n, c, len(rows), len(columns)) -> (n, c, height, width).
    """
    grad, which = channels_last(grad), channels_last(which)
    out = np.zeros((grad.shape[0], rows.size, columns.size, grad.shape[3]), grad.dtype)
    if fast.use_compiled(out):
        fast.pooling.max_pool2d_grad(grad, which, rows, columns, out)
    else:
        for place, index, inside in _elements(rows, columns):
            _scatter(out, index, np.where(_masked(which == place, inside), grad, 0))
    return channels_first(out)


def max_pool2d_take(x, which, rows, columns):
    """Of each window of x (n, c, height, width), the element at the place `which`; 0 if it has none there."""
    x, which = channels_last(x), channels_last(which)
    y = np.zeros(which.shape, x.dtype)
    for place, index, inside in _elements(rows, columns):
        np.copyto(y, x[index[0]][index[1]], where=_masked(which == place, inside))
    return channels_first(y)


def avg_pool2d(x, rows, columns):
    """The sum of each window over the divisors of its row and its column: x (n, c, height, width) -> one each."""
    x = channels_last(x)
    share = _share(rows, columns, x.dtype)
    y = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]), x.dtype)
    if fast.use_compiled(x):
        fast.pooling.avg_pool2d(x, rows, columns, share, y)
    else:
        for _, index, inside in _elements(rows, columns):
            y += _zeroed(x[index[0]][index[1]], inside)
        y *= share[:, :, None]
    return channels_first(y)


def avg_pool2d_grad(grad, rows, columns):
    """The gradient of the input: each element of `grad`, over the divisors, goes to all of its window."""
    grad = channels_last(grad)
    share = _share(rows, columns, grad.dtype)
    out = np.zeros((grad.shape[0], rows.size, columns.size, grad.shape[3]), grad.dtype)
    if fast.use_compiled(out):
        fast.pooling.avg_pool2d_grad(grad, rows, columns, share, out)
    else:
        grad = grad * share[:, :, None]
        for _, index, inside in _elements(rows, columns):
            _scatter(out, index, _zeroed(grad, inside))
    return channels_first(out)


def _share(rows, columns, dtype):
    """What each element of a window contributes to its average: (len(rows), len(columns))."""
    return (1 / np.outer(rows.divisors, columns.divisors)).astype(dtype)


def _elements(rows, columns):
    """For each place in a window, row by row: its number, its index in all windows, which windows have it or None.

    The index is two, one after the other, for images (n, height, width, c); the last is (out_height, out_width, 1).
    """
    for i, (row, row_inside) in enumerate(rows.places):
        for j, (column, column_inside) in enumerate(columns.places):
            inside = None
            if row_inside is not None or column_inside is not None:
                row_has = np.ones(len(rows), bool) if row_inside is None else row_inside
                column_has = np.ones(len(columns), bool) if column_inside is None else column_inside
                inside = np.logical_and.outer(row_has, column_has)[:, :, None]
            yield i * columns.length + j, ((slice(None), row), (slice(None), slice(None), column)), inside


def _masked(mask, inside):
    return mask if inside is None else mask & inside


def _zeroed(x, inside):
    return x if inside is None else np.where(inside, x, 0)


def _scatter(out, index, part):
    """Add `part` at the place `index` of all windows; elements that are in several windows get every part."""
    (every, row), (_, _, column) = index
    if isinstance(row, slice) and isinstance(column, slice):
        out[every, row, column] += part
    else:
        row, column = (np.arange(n)[k] for n, k in ((out.shape[1], row), (out.shape[2], column)))
        np.add.at(out, (every, row[:, None], column), part)
