"""Launches of Numba's kernels that take the host a tenth of the time of Numba's own, most of which goes into types.

A compiled kernel takes plain numbers, one after another: of a row of elements seven, of a tuple those in it. That
is read from `_Kernel._prepare_args` in numba-cuda 0.30, which the tests compare with. The types are looked at only
when a kernel meets arguments of new kinds; what it was compiled to for them is kept.
"""

from functools import cache, lru_cache

import numpy as np
from cuda.core import Kernel, LaunchConfig
from cuda.core import launch as launch_flat
from numba import cuda
from numba.cuda import types
from numba.cuda.np import numpy_support

from minidl.kernels.cuda.numba_code import kept

# mypy: disable-error-code="import-not-found, attr-defined, name-defined"

CONFIGURATIONS = 4096  # that are kept: (blocks, threads), as many as arrays have sizes


class Elements:
    """A row of elements as an argument of a kernel: what Numba (numba-cuda 0.30) reads of its own DeviceNDArray.

    That would do as well, but takes 50 µs to make. It owns no memory. flat: the numbers that a compiled kernel takes.
    """

    __cuda_memory__ = True
    __slots__ = ("_numba_type_", "ptr", "size", "shape", "dtype", "flat")
    strides_in_bytes, is_contiguous_c, is_contiguous_f = None, True, True

    def __init__(self, ptr: int, size: int, dtype: np.dtype):
        self.ptr, self.size, self.shape, self.dtype = ptr, size, (size,), dtype
        self._numba_type_ = _type_of(dtype)
        # Two owners, which there are none of; size and bytes of an element; the address; shape and strides.
        self.flat = 0, 0, size, dtype.itemsize, ptr, size, dtype.itemsize

    @property
    def _strided_memory_view_shim(self) -> "Elements":
        return self

    _layout = _strided_memory_view_shim


def launch(kernel, blocks, threads, stream, arguments) -> None:
    """Run a kernel of Numba on a grid of `blocks` of `threads`, each an int or a tuple, in the turn of a `stream` of
    cuda.core.

    arguments: Elements, numbers of Python and NumPy, and tuples of numbers or of tuples; named ones too.
    """
    kinds, flat = flattened(arguments)
    launch_flat(stream, _configuration(blocks, threads), _compiled(kernel, kinds), *flat)


def launch_by_numba(kernel, blocks, threads, stream, arguments) -> None:
    """The same, by Numba's own launch."""
    kept(kernel)[blocks, threads, stream](*arguments)


def flattened(arguments) -> tuple[tuple, list]:
    """What decides for which types a kernel is compiled, one for each argument: the dtype of Elements, the type of a
    number, for a tuple its type and those of what is in it; and all numbers that the compiled kernel takes."""
    kinds, flat = [], []
    for argument in arguments:
        kind = type(argument)
        if kind is Elements:
            kinds.append(argument.dtype)
            flat += argument.flat
        elif isinstance(argument, tuple):
            within = tuple(map(type, argument))
            if tuple in within:
                within, argument = flattened(argument)
            kinds.append((kind, *within))
            flat += argument
        else:
            kinds.append(kind)
            flat.append(argument)
    return tuple(kinds), flat


@cache
def _type_of(kind) -> types.Type:
    """Numba's type for a kind of argument that `flattened` gives."""
    if isinstance(kind, tuple):
        return types.BaseTuple.from_types(tuple(map(_type_of, kind[1:])), kind[0])
    if isinstance(kind, np.dtype):
        return types.Array(numpy_support.from_dtype(kind), 1, "C")
    if issubclass(kind, int | float | np.bool_ | np.integer | np.floating):
        return numpy_support.from_dtype(np.dtype(kind))
    raise TypeError(f"{kind.__name__} as an argument of a kernel: give it arrays, numbers and tuples of numbers")


@cache
def _compiled(kernel, kinds: tuple) -> Kernel:
    return kept(kernel).compile(tuple(map(_type_of, kinds)))._codelibrary.get_cufunc().kernel


@lru_cache(CONFIGURATIONS)
def _configuration(blocks, threads) -> LaunchConfig:
    return LaunchConfig(grid=_ints(blocks), block=_ints(threads))


def _ints(size):
    """Those of NumPy are refused."""
    return tuple(map(int, size)) if isinstance(size, tuple) else int(size)


# Looking whether it works


@cuda.jit
def trial(out, x, count, factor, shifts, flag, nothing):
    """out = factor x + shifts[1], by as many threads as there are: what launches the trial sees in it."""
    i = cuda.grid(1)
    if i < count and flag:
        out[i] = factor * x[i] + shifts[1]


def trial_arguments(out: Elements, x: Elements) -> list:
    """Of every kind that kernels are given."""
    return [out, x, out.size, np.float32(2), (np.float32(8), np.float32(0.5)), True, ()]


def trial_result(x: np.ndarray) -> np.ndarray:
    return np.float32(2) * x + np.float32(0.5)
