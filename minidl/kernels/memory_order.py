"""How NumPy lays the elements of an array out in memory, as strides counted in elements; None is row-major order.

Whether a reshape is a view or a copy depends on it, and so does what memory a model needs.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

Strides = tuple[int, ...] | None
known = lru_cache(1 << 12)  # a model has the same few shapes again and again
broadcast = known(np.broadcast_shapes)


class LaidOut:
    """What arrays of all devices but the CPU, which has NumPy's, are: a shape, a dtype, and how the elements lie.

    strides: elements from one place to the next along each dimension, None for row-major order.
    """

    __slots__ = ("shape", "dtype", "size", "nbytes", "_strides")

    def __init__(self, shape: tuple[int, ...], dtype, strides: Strides = None):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.size = math.prod(shape)
        self.nbytes = self.size * self.dtype.itemsize
        self._strides = None if strides is None else simplified(shape, strides)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one place to the next along each dimension."""
        return self._strides or row_major(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order, without gaps."""
        return self._strides is None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


@known
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@known
def simplified(shape: tuple[int, ...], strides: Strides) -> Strides:
    """None for strides that are row-major. Those of dimensions of size 1, which do not matter, are 0."""
    if strides is None or 0 in shape:
        return None
    if all(n == 1 or given == step for n, given, step in zip(shape, strides, row_major(shape), strict=True)):
        return None
    return tuple(0 if n == 1 else step for n, step in zip(shape, strides, strict=True))


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of images (n, channels, ...) which lie in memory as (n, ..., channels)."""
    n, channels, *places = shape
    first, *steps, last = row_major((n, *places, channels))
    return (first, last, *steps)


def whole_shape(x: LaidOut, shape) -> tuple[int, ...]:
    """`shape` with the size that a -1 in it stands for; ValueError unless it has as many elements as x."""
    shape = tuple(shape)
    if -1 in shape:
        known = -math.prod(shape)
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    if math.prod(shape) != x.size:
        raise ValueError(f"cannot reshape an array of shape {x.shape} into {shape}")
    return shape


@known
def reshaped(shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]) -> Strides:
    """The strides of a view in the shape `new`; None if there is no such view, and reshape copies."""
    runs: list[tuple[int, int]] = []  # (elements, step) of dimensions that are as good as one
    for n, step in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * step:
            runs[-1] = runs[-1][0] * n, step
        else:
            runs.append((n, step))
    found, left, step = [], 1, 1
    for n in reversed(new):
        if n > 1 and left == 1:
            left, step = runs.pop()
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(reversed(found))


def indexed(shape: tuple[int, ...], strides: tuple[int, ...], key) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The shape and strides of the view x[key], for a key of ints and slices, and how far its first element lies from
    that of x."""
    return _indexed(shape, strides, tuple((k.start, k.stop, k.step) if isinstance(k, slice) else k for k in key))


@known
def _indexed(shape, strides, key):
    """`indexed`, for a key whose slices are tuples."""
    key = [slice(*k) if isinstance(k, tuple) else k for k in key]
    if not any(k is Ellipsis for k in key):
        key.append(...)  # NumPy would read an element that is named by ints alone
    whole = _stand_in(shape, strides)
    view = whole[tuple(key)]
    return view.shape, view.strides, view.ctypes.data - whole.ctypes.data


def like(shape: tuple[int, ...], strides: tuple[int, ...]) -> Strides:
    """The strides of a new array in the order of memory of one of `shape` and `strides`."""
    return simplified(shape, elementwise([(shape, strides)], shape)) if simplified(shape, strides) else None


def elementwise(arrays: list[tuple[tuple[int, ...], tuple[int, ...]]], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a new array of `shape`, computed element by element from arrays of these shapes and strides.

    NumPy keeps the order of memory of its inputs as well as it can. It is asked, with 2 for each larger size.
    """
    return _elementwise(tuple(arrays), shape)


@known
def _elementwise(arrays, shape):
    small = [_stand_in(tuple(min(n, 2) for n in s), strides) for s, strides in arrays]
    flags = [["readonly"]] * len(small) + [["writeonly", "allocate"]]
    asked = np.nditer([*small, None], ["zerosize_ok"], flags, op_dtypes=[bool] * len(flags), order="K").operands[-1]
    order = sorted(range(len(shape)), key=lambda d: -asked.strides[d])
    steps = row_major(tuple(shape[d] for d in order))
    return tuple(steps[order.index(d)] for d in range(len(shape)))


def _stand_in(shape, strides):
    """An array of this shape whose strides in bytes are `strides`. Nobody must touch its elements: it has only one."""
    return as_strided(np.empty((), bool), shape, strides)
