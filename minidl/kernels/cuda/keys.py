"""What a key with arrays names, by NumPy's rules: the elements of a view, each moved on by a place in a table.

Slices and None give a view. The arrays, which broadcast, choose along the dimensions that they stand for: what they
choose lies as far from the view's first elements as the sum of index times stride, and that sum is worked out once for
all of the arrays, into `places`.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minidl.kernels import memory_order
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import array, contiguous, to_numpy
from minidl.kernels.cuda.elementwise import add, mapped
from minidl.kernels.cuda.kernel_launch import THREADS, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.reduction import max, min
from minidl.kernels.cuda.refusals import Check, launch_checked, refuse
from minidl.kernels.cuda.target import cuda, unsigned


@dataclass(frozen=True)
class Chosen:
    """The elements x[key]: of `shape`, those of `x` with `strides`, moved on by the elements of `places` with
    `place_strides`. indices: what chooses them along dimensions of these `sizes`."""

    x: CudaArray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    places: CudaArray
    place_strides: tuple[int, ...]
    indices: list[np.ndarray | CudaArray]
    sizes: list[int]

    def numbers(self) -> CudaArray:
        """For each of `places` which of all that the indices might have chosen it is, a number below prod(sizes)."""
        return _places(self.indices, self.sizes, memory_order.row_major(tuple(self.sizes)))


def is_view(key: tuple) -> bool:
    """Whether x[key] has no arrays or bools to choose by."""
    return all(k is None or k is Ellipsis or isinstance(k, slice) or _is_int(k) for k in key)


def view(x: CudaArray, key: tuple) -> CudaArray:
    """x[key] for a key of ints, slices, None and ..."""
    shape, strides, offset = memory_order.indexed(x.shape, x.strides, key)
    return x.view(shape, strides, offset)


def chosen(x: CudaArray, key: tuple, checked: bool = True) -> Chosen:
    """The elements x[key], for a key with arrays; IndexError, perhaps later, if one is out of bounds, unless
    not `checked`."""
    basic: list = []  # the key of the view
    chosen_along: list[bool] = []  # for each dimension of the view, whether arrays choose along it
    indices: list[np.ndarray | CudaArray] = []
    sizes: list[int] = []
    steps: list[int] = []
    first = runs = 0  # where the arrays stand in the view; how many times other parts of the key lie between them
    follows = False
    for dim, part in _parts(x.shape, key):
        is_array = isinstance(part, np.ndarray | CudaArray)
        if is_array:
            if not follows:
                first, runs = len(basic), runs + 1
            n, step = (1, 0) if dim is None else (x.shape[dim], x.strides[dim])
            if checked:
                _check(part, dim or 0, n)
            indices.append(part)
            sizes.append(n)
            steps.append(step)
        if part is not Ellipsis and not (is_array and dim is None):
            basic.append(slice(None) if is_array else part)
            chosen_along.append(is_array)
        follows = is_array
    places = _places(indices, sizes, steps)
    x = view(x, tuple(basic))
    lead = list(range(first)) if runs == 1 else []  # NumPy puts what arrays choose where they stand, or else in front
    rest = [d for d in range(len(lead), x.ndim) if not chosen_along[d]]
    none = (0,) * places.ndim
    return Chosen(
        x,
        (*(x.shape[d] for d in lead), *places.shape, *(x.shape[d] for d in rest)),
        (*(x.strides[d] for d in lead), *none, *(x.strides[d] for d in rest)),
        places,
        (*(0 for _ in lead), *places.strides, *(0 for _ in rest)),
        indices,
        sizes,
    )


def _is_int(k) -> bool:
    return hasattr(k, "__index__") and not isinstance(k, bool | np.bool_ | np.ndarray)


def _parts(shape: tuple[int, ...], key: tuple) -> Iterator[tuple[int | None, object]]:
    """The parts of the key with the dimensions of x that they stand for: slices, None, arrays of ints and, where ...
    stood, Ellipsis as a mark. Masks are the indices where they are true; ints are arrays beside arrays."""
    key = tuple(np.asarray(k) if isinstance(k, bool | np.bool_) else k for k in key)
    rest = len(shape) - sum(_dims(k) for k in key)
    if rest < 0:
        raise IndexError(
            f"too many indices for array: array is {len(shape)}-dimensional, but {len(shape) - rest} were indexed"
        )
    if not any(k is Ellipsis for k in key):
        key = (*key, ...)
    d = 0
    for k in key:
        if k is Ellipsis:
            yield None, Ellipsis
            for _ in range(rest):
                yield d, slice(None)
                d += 1
        elif k is None or isinstance(k, slice):
            yield d, k
            d += k is not None
        elif _is_int(k):
            yield d, np.asarray(operator.index(k))
            d += 1
        elif k.dtype == bool:
            mask = to_numpy(k) if isinstance(k, CudaArray) else k
            if not mask.ndim:
                yield None, np.zeros(int(mask), np.int64)
                continue
            for along, n in enumerate(mask.shape, d):
                if shape[along] != n:
                    raise IndexError(
                        f"boolean index did not match indexed array along axis {along}; size of axis is "
                        f"{shape[along]} but size of corresponding boolean axis is {n}"
                    )
            for indices in np.nonzero(mask):
                yield d, indices
                d += 1
        else:
            yield d, k
            d += 1


def _dims(k) -> int:
    """How many dimensions the part k of a key stands for."""
    if k is None or k is Ellipsis:
        return 0
    return k.ndim if isinstance(k, np.ndarray | CudaArray) and k.dtype == bool else 1


def _places(indices: list, sizes: Sequence[int], steps: Sequence[int]) -> CudaArray:
    """The sum of index times step, where indices below 0 count from the end of the `sizes`; row-major.

    An index on the GPU that is out of bounds counts as the nearest that is not.
    """
    try:
        np.broadcast_shapes(*(i.shape for i in indices))
    except ValueError:
        shapes = " ".join(str(i.shape).replace(" ", "") for i in indices)
        raise IndexError(
            f"shape mismatch: indexing arrays could not be broadcast together with shapes {shapes} "
        ) from None
    on_host: np.ndarray | int = 0
    on_device = None
    for index, n, step in zip(indices, sizes, steps, strict=True):
        if isinstance(index, np.ndarray):
            on_host = on_host + np.where(index < 0, index + n, index).astype(np.int64) * step
        else:
            part = mapped("stepped", index, numbers=(n, step))
            on_device = part if on_device is None else add(on_device, part)
    if on_device is None:
        return array(on_host, np.int64)
    return contiguous(on_device if isinstance(on_host, int) else add(on_device, array(on_host, np.int64)))


def _check(index, dim: int, n: int) -> None:
    """IndexError, perhaps later if the index lies on the GPU, unless -n <= index < n everywhere."""

    def sentence(low, high):
        return f"index {low if low < -n else high} is out of bounds for axis {dim} with size {n}"

    late = f"index {{}} is out of bounds for axis {dim} with size {n}"
    check_within(index, -n, n, IndexError, late, sentence)


def check_within(
    x: np.ndarray | CudaArray, low: int, end: int, error: type[Exception], late: str, at_once: Callable[[int, int], str]
) -> None:
    """Raise `error`, perhaps later if x lies on the GPU, unless low <= x < end everywhere.

    late, at_once: its sentence, as Check has them; the latter of the smallest and the largest of x.
    """
    if not x.size:
        return

    def sentence():
        return at_once(*(int(to_numpy(f(x, None, False))) for f in (min, max)))

    if isinstance(x, np.ndarray):
        smallest, largest = int(x.min()), int(x.max())
        if smallest < low or largest >= end:
            raise error(at_once(smallest, largest))
    elif low >= end:  # nothing can stand for what is outside
        raise error(sentence())
    else:
        check = Check(error, late, sentence)
        launch_checked(check, note_outside, over(x.size), THREADS, contiguous(x), x.size, low, end)


@cuda.jit
def note_outside(word, number, x, count, low, end):
    """One thread an element."""
    count, i, step = unsigned(count), column(), columns()
    while i < count:
        if not low <= x[i] < end:
            refuse(word, number, x[i])
        i = unsigned(i + step)
