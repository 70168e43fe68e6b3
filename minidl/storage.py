"""What shares memory counts once: the distinct storages of arrays, on any device, and their bytes."""

from collections.abc import Iterable

import numpy as np

from minidl import kernels
from minidl.kernels.meta.record import MetaArray, Storage

NUMBER = 8  # bytes: storages no larger do not count, since NumPy makes a number of what is an array on meta

Array = np.ndarray | MetaArray


def storage(array: Array):
    """What holds the memory in which `array` lies: the array of which all others are views, on meta a Storage.

    Its `nbytes` are those of all the memory. Of an array in shared memory it is what `Heap.empty` lent, not the arena.
    """
    return kernels.for_array(array).extent(array)[0]


def storages(arrays: Iterable[Array]) -> dict[int, int]:
    """id of each distinct storage of `arrays` -> its bytes. The ids hold as long as the arrays are kept."""
    owners = (storage(array) for array in arrays)
    return {id(owner): owner.nbytes for owner in owners if owner.nbytes > NUMBER}


def on_meta(array: Array) -> MetaArray:
    """An array on meta that lies in memory as `array` does, in a storage of its own, as large as that of `array`."""
    strides = array.strides
    if isinstance(array, np.ndarray):
        strides = tuple(step // array.itemsize for step in strides)
    return MetaArray(array.shape, array.dtype, Storage(storage(array).nbytes), strides)


def placement(array: MetaArray) -> tuple:
    """Equal for arrays of which any block makes and keeps the same: shape, dtype and how they lie in memory."""
    return array.shape, array.dtype, array.strides, array.storage.nbytes
