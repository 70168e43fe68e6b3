"""Reading and writing elements by their places, with keys by NumPy's rules: ints, slices and arrays. Rows of a table.

Arrays in keys may lie on the host or on the GPU. Of bools the host must know how many are true: it waits for the GPU,
if they lie there. Indices that are out of bounds are refused as refusals.py says, and until then the nearest that
there are stand for them.
"""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import assign, copy, full, reshape
from minidl.kernels.cuda.elementwise import broadcast_strides
from minidl.kernels.cuda.kernel_launch import THREADS, block_for, collapsed, launch, over, over_rows, padded
from minidl.kernels.cuda.keys import Chosen, check_within, chosen, is_view, view
from minidl.kernels.cuda.places import column, columns, place, row, rows
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = [
    "check_indices", "embedding", "embedding_grad", "index", "index_add", "index_assign", "index_grad", "index_put",
]  # fmt: skip


# The kernels


def moving(move):
    @cuda.jit
    def move_by_places(
        x, values, places, count, width, shape, of_x, of_values, of_places, next_x, next_value, next_place
    ):  # fmt: skip
        """A map of three arrays of one shape, in which the elements of x lie further on by what `places` says.

        Threads go along the last dimension. Where whole rows are chosen it is theirs, and neighbours touch neighbours
        in x as well as in `values`; where single elements are, those of x lie anywhere.
        """
        count, width = unsigned(count), unsigned(width)
        next_x, next_value, next_place = unsigned(next_x), unsigned(next_value), unsigned(next_place)
        first, step, line, lines = column(), columns(), row(), rows()
        while line < count:
            i, o, k, j = place(line, shape, of_x), place(line, shape, of_values), place(line, shape, of_places), first
            while j < width:
                by = places[unsigned(k + j * next_place)]
                if by != NOWHERE:
                    move(x, unsigned(i + j * next_x + by), values, unsigned(o + j * next_value))
                j = unsigned(j + step)
            line = unsigned(line + lines)

    return move_by_places


NOWHERE = np.iinfo(np.int64).min  # the place of values that are not written


@cuda.jit(device=True)
def take_out(x, i, values, o):
    values[o] = x[i]


@cuda.jit(device=True)
def put_in(x, i, values, o):
    x[i] = values[o]


@cuda.jit(device=True)
def add_to(x, i, values, o):
    """As one step that no other thread can come between: several values may go to one place, in any order."""
    cuda.atomic.add(x, i, values[o])


@functools.cache
def _kernel(move):
    return moving(move)


@cuda.jit
def claim(last, numbers, count):
    """last[n] = the largest k with numbers[k] = n."""
    count, k, step = unsigned(count), column(), columns()
    while k < count:
        cuda.atomic.max(last, unsigned(numbers[k]), np.int64(k))
        k = unsigned(k + step)


@cuda.jit
def give_up(places, last, numbers, count):
    """places[k] = NOWHERE where a later value goes to the same place."""
    count, k, step = unsigned(count), column(), columns()
    while k < count:
        if last[unsigned(numbers[k])] != k:
            places[k] = NOWHERE
        k = unsigned(k + step)


# Launching them


def _move(move, where: Chosen, values: CudaArray) -> None:
    """values: they broadcast to the shape of what is chosen."""
    size = math.prod(where.shape)
    if not size:
        return
    while values.ndim > len(where.shape) and values.shape[0] == 1:
        values = reshape(values, values.shape[1:])
    _refuse_misfit(values, where.shape)
    shape, steps = collapsed(where.shape, where.strides, broadcast_strides(values, where.shape), where.place_strides)
    *outer, width = shape
    block = block_for(width)
    arrays = where.x, values, where.places
    launch(
        _kernel(move), over_rows(size // width, width, block), block, *arrays, size // width, width, padded(outer, 1),
        *((*padded(s[:-1], 0), a.first) for a, s in zip(arrays, steps, strict=True)), *(s[-1] for s in steps),
    )  # fmt: skip


def _refuse_misfit(values: CudaArray, shape: tuple[int, ...]) -> None:
    fits = values.ndim <= len(shape) and all(
        n in (1, m) for n, m in zip(reversed(values.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(f"values of shape {values.shape} do not broadcast to the places, of shape {shape}")


def _put(where: Chosen, values: CudaArray) -> None:
    """Of several values for one place the last is written, as NumPy writes it."""
    _refuse_misfit(values, where.shape)
    count = where.places.size
    if count > 1:
        numbers = where.numbers()
        last = full((math.prod(where.sizes),), -1, np.int64)
        launch(claim, over(count), THREADS, last, numbers, count)
        launch(give_up, over(count), THREADS, where.places, last, numbers, count)
    _move(put_in, where, values)


# The functions


def index(x, key):
    """x[key]: a view for ints and slices, a copy for arrays."""
    if is_view(key):
        return view(x, key)
    where = chosen(x, key)
    out = CudaArray(where.shape, x.dtype)
    _move(take_out, where, out)
    return out


def index_assign(target, key, x):
    """target[key] = x, in place."""
    if target.storage is x.storage:
        x = copy(x)
    if is_view(key):
        _assign(view(target, key), x)
    else:
        _put(chosen(target, key), x)


def _assign(target: CudaArray, x: CudaArray) -> None:
    while x.ndim > target.ndim and x.shape[0] == 1:
        x = reshape(x, x.shape[1:])
    _refuse_misfit(x, target.shape)
    assign(target, x)


def index_put(x, key, values):
    """A copy of x with `values` at `key`."""
    out = copy(x)
    index_assign(out, key, values)
    return out


def index_add(x, key, values):
    """A copy of x with `values` added at `key`; a place named several times gets every part, in any order."""
    out = copy(x)
    _move(add_to, chosen(out, key), values)
    return out


def index_grad(grad, key, shape):
    """Zeros of `shape` with `grad` added at `key`; a place named several times gets every part, in any order.

    That the indices lie within the bounds is known from `index`.
    """
    out = full(shape, 0, grad.dtype)
    if is_view(key):
        _assign(view(out, key), grad)
    else:
        _move(add_to, chosen(out, key, checked=False), grad)
    return out


def check_indices(name, indices, size):
    """IndexError, perhaps later, unless the indices lie in [0, size)."""
    check_within(
        indices, 0, size, IndexError, f"{name}: an index is {{}}, the places lie in [0, {size})",
        lambda low, high: f"{name}: indices lie in [{low}, {high}], the places in [0, {size})",
    )  # fmt: skip


def embedding(weight, indices):
    """weight (rows, width), indices (...) of int64 -> (..., width)."""
    rows = weight.shape[0]
    check_within(
        indices, 0, rows, ValueError, f"embedding: an index is {{}}, the table has rows [0, {rows})",
        lambda low, high: f"embedding: indices lie in [{low}, {high}], the table has rows [0, {rows})",
    )  # fmt: skip
    where = chosen(weight, (indices,), checked=False)
    out = CudaArray(where.shape, weight.dtype)
    _move(take_out, where, out)
    return out


def embedding_grad(grad, indices, rows):
    """Sum the rows of grad (..., width) by index -> (rows, width), in any order."""
    return index_grad(grad, (indices,), (rows, grad.shape[-1]))
