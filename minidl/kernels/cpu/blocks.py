"""How large arrays are worked through: in blocks that stay in the cache, or by compiled code."""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

from minidl.kernels.algorithms import COMPILED_FROM, is_compiled
from minidl.kernels.cpu.threads import split

BLOCK = 16384  # elements: several float32 blocks fit in a cache of 1 MiB
THREAD = 1 << 15  # elements that are worth a thread of their own, where each is read once or twice


def thread_rows(width: int, thread: int = THREAD) -> int:
    """How many rows of `width` elements (or multiplications) are worth a thread, if `thread` of them are."""
    return -(-thread // max(1, width))


def in_memory_order(*arrays):
    """The elements of arrays of one shape as flat views, in the order in which all lie in memory; None if they do not.

    Images with channels last, say, are then gone through as they lie.
    """
    first = arrays[0]
    order = sorted(range(first.ndim), key=lambda dim: -first.strides[dim])
    turned = [array.transpose(order) for array in arrays]
    return [array.reshape(-1) for array in turned] if all(array.flags.c_contiguous for array in turned) else None


def by_element(kernel: Callable, *arrays):
    """The result of kernel(*arrays, result) over the elements of arrays of one shape, cut over threads."""
    result = np.empty_like(arrays[0])
    flat = in_memory_order(*arrays, result)
    if flat is None:
        result = np.empty(result.shape, result.dtype)
        flat = [np.ravel(array) for array in (*arrays, result)]
    split(result.size, lambda part: kernel(*(array[part] for array in flat)), THREAD)
    return result


def row_blocks(rows: int, width: int):
    """Slices that cover `rows` rows of `width` elements, about BLOCK elements each."""
    step = max(1, BLOCK // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def use_compiled(x, least: int = COMPILED_FROM) -> bool:
    """Whether x is of a size, from `least` elements on, and of a dtype for compiled code."""
    return is_compiled(x.size, x.dtype, least)


def _when_needed(name: str) -> Callable[[], ModuleType]:
    """A function that gives a module of compiled kernels. Numba comes with it, so it is imported at the first call."""
    return functools.cache(lambda: importlib.import_module(f"minidl.kernels.cpu.{name}"))


compiled = _when_needed("compiled")
compiled_direct = _when_needed("compiled_direct")
compiled_images = _when_needed("compiled_images")
compiled_losses = _when_needed("compiled_losses")
compiled_masks = _when_needed("compiled_masks")
compiled_normalization = _when_needed("compiled_normalization")
compiled_pooling = _when_needed("compiled_pooling")
compiled_recurrent = _when_needed("compiled_recurrent")
compiled_updates = _when_needed("compiled_updates")
compiled_winograd = _when_needed("compiled_winograd")
