"""How large arrays are worked through: in blocks that stay in the cache, or by compiled code."""

import functools
from types import ModuleType

import numpy as np

BLOCK = 16384  # elements: several float32 blocks fit in a cache of 1 MiB
COMPILED_FROM = 1 << 16  # elements: below, the import of Numba is not worth its 0.2 seconds

THREAD = 1 << 15  # elements that are worth a thread of their own, where each is read once or twice


def thread_rows(width: int) -> int:
    """How many rows of `width` elements are worth a thread."""
    return -(-THREAD // max(1, width))


def in_memory_order(*arrays):
    """The elements of arrays of one shape as flat views, in the order in which all lie in memory; None if they do not.

    Images with channels last, say, are then gone through as they lie.
    """
    first = arrays[0]
    order = sorted(range(first.ndim), key=lambda dim: -first.strides[dim])
    turned = [array.transpose(order) for array in arrays]
    return [array.reshape(-1) for array in turned] if all(array.flags.c_contiguous for array in turned) else None


def row_blocks(rows: int, width: int):
    """Slices that cover `rows` rows of `width` elements, about BLOCK elements each."""
    step = max(1, BLOCK // max(1, width))
    return (slice(start, start + step) for start in range(0, rows, step))


def use_compiled(x, least: int = COMPILED_FROM) -> bool:
    return x.dtype == np.float32 and x.size >= least


@functools.cache
def compiled() -> ModuleType:
    """The compiled kernels. Numba comes with them, so they are imported when first needed."""
    from minidl.kernels.cpu import compiled

    return compiled


@functools.cache
def compiled_direct() -> ModuleType:
    from minidl.kernels.cpu import compiled_direct

    return compiled_direct


@functools.cache
def compiled_images() -> ModuleType:
    from minidl.kernels.cpu import compiled_images

    return compiled_images


@functools.cache
def compiled_losses() -> ModuleType:
    from minidl.kernels.cpu import compiled_losses

    return compiled_losses


@functools.cache
def compiled_normalization() -> ModuleType:
    from minidl.kernels.cpu import compiled_normalization

    return compiled_normalization


@functools.cache
def compiled_pooling() -> ModuleType:
    from minidl.kernels.cpu import compiled_pooling

    return compiled_pooling


@functools.cache
def compiled_recurrent() -> ModuleType:
    from minidl.kernels.cpu import compiled_recurrent

    return compiled_recurrent


@functools.cache
def compiled_updates() -> ModuleType:
    from minidl.kernels.cpu import compiled_updates

    return compiled_updates


@functools.cache
def compiled_winograd() -> ModuleType:
    from minidl.kernels.cpu import compiled_winograd

    return compiled_winograd
