"""The GPU: its memory, streams and events by NVIDIA's driver, and what Numba asks of an array.

emulated_device.py has the same names for none. The context, the process's share of the GPU, is Numba's.
"""

import bisect
import math
import threading
from functools import cache

import numpy as np
from cuda.bindings import driver
from cuda.core import Stream as LaunchStream
from numba import cuda
from numba.cuda import types
from numba.cuda.core import config
from numba.cuda.np import numpy_support

# mypy: disable-error-code="import-not-found, attr-defined"

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # Numba's, at every launch of few blocks

_entered = threading.local()


def _call(function, *arguments):
    """What a function of the driver gives; RuntimeError says in one sentence what it answers instead."""
    if not hasattr(_entered, "context"):
        _entered.context = cuda.current_context()  # makes it the context of this thread
    error, *results = function(*arguments)
    if error == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemory
    if error != driver.CUresult.CUDA_SUCCESS:
        text = driver.cuGetErrorString(error)[1] or b"unknown error"
        raise RuntimeError(f"the GPU cannot go on: {text.decode()} ({error.name}, from {function.__name__})")
    return results[0] if len(results) == 1 else results


class OutOfMemory(Exception):
    """The device has not as much memory left."""


NAME = cuda.get_current_device().name
MULTIPROCESSORS = cuda.get_current_device().MULTIPROCESSOR_COUNT


def count() -> int:
    return _call(driver.cuDeviceGetCount)


# Memory


class Block:
    """`nbytes` of the device's memory from `address` on."""

    __slots__ = ("address", "nbytes")

    def __init__(self, address: int, nbytes: int):
        self.address, self.nbytes = address, nbytes


def allocate(nbytes: int) -> Block:
    """New memory of the device; OutOfMemory if it has not as much."""
    return Block(int(_call(driver.cuMemAlloc, nbytes)), nbytes)


def release(block: Block) -> None:
    """Give the memory back to the device."""
    _call(driver.cuMemFree, block.address)


def free_memory() -> int:
    """Bytes of the device that nobody holds."""
    return _call(driver.cuMemGetInfo)[0]


class Elements:
    """A row of elements as an argument of a kernel: what Numba (numba-cuda 0.30) reads of its own DeviceNDArray.

    That would do as well, but takes 50 µs to make. It owns no memory.
    """

    __cuda_memory__ = True
    __slots__ = ("_numba_type_", "ptr", "size", "shape", "dtype")
    strides_in_bytes, is_contiguous_c, is_contiguous_f = None, True, True

    def __init__(self, ptr: int, size: int, dtype: np.dtype):
        self.ptr, self.size, self.shape, self.dtype = ptr, size, (size,), dtype
        self._numba_type_ = _row_of(dtype)

    @property
    def _strided_memory_view_shim(self) -> "Elements":
        return self

    _layout = _strided_memory_view_shim


@cache
def _row_of(dtype: np.dtype):
    return types.Array(numpy_support.from_dtype(dtype), 1, "C")


def elements(block: Block, offset: int, count: int, dtype) -> Elements:
    """`count` elements from the byte `offset` on, as an argument of a kernel."""
    return Elements(block.address + offset, count, dtype)


def launch(kernel, blocks, threads, stream: "Stream", arguments) -> None:
    """Run a kernel on a grid of `blocks` of `threads`, each an int or a tuple, in the stream's turn."""
    kernel[blocks, threads, stream.handle](*arguments)


def copy_within(target: Block, to: int, source: Block, start: int, nbytes: int, stream: "Stream") -> None:
    """Copy bytes from one place of the device's memory to another."""
    _call(driver.cuMemcpyDtoDAsync, target.address + to, source.address + start, nbytes, stream.address)


def address(block: Block) -> int:
    """Of the first byte."""
    return block.address


# Copies


_pinned: list[tuple[int, int]] = []  # where it begins and ends, in order


class Pinned:
    """Memory of the host that stays where it is, so that the device can copy without the processor."""

    def __init__(self, nbytes: int):
        start = int(_call(driver.cuMemHostAlloc, nbytes, 0))
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (start, False), "version": 3}
        self.place = start, start + nbytes
        bisect.insort(_pinned, self.place)

    def __del__(self) -> None:
        if hasattr(self, "place"):
            _pinned.remove(self.place)
            _call(driver.cuMemFreeHost, self.place[0])


def pinned(nbytes: int) -> np.ndarray:
    """Bytes of the host from and to which copies can be asynchronous."""
    return np.asarray(Pinned(max(nbytes, 1)))[:nbytes]


def _is_pinned(values: np.ndarray) -> bool:
    start = values.ctypes.data
    before = bisect.bisect(_pinned, (start, math.inf)) - 1
    return before >= 0 and start < _pinned[before][1]


def _copy(function, to: int, start: int, values: np.ndarray, stream: "Stream") -> None:
    _call(function, to, start, values.nbytes, stream.address)
    if not _is_pinned(values):
        stream.synchronize()


def to_device(block: Block, offset: int, values: np.ndarray, stream: "Stream") -> None:
    """Copy a contiguous host array to the byte `offset`: done on return, or in the stream's turn if it is pinned."""
    _copy(driver.cuMemcpyHtoDAsync, block.address + offset, values.ctypes.data, values, stream)


def to_host(values: np.ndarray, block: Block, offset: int, stream: "Stream") -> None:
    """Copy the bytes from `offset` on to a contiguous host array: as `to_device`."""
    _copy(driver.cuMemcpyDtoHAsync, values.ctypes.data, block.address + offset, values, stream)


# Order


class Stream:
    """An order of work: what is put in one is done in turn, what is in two at the same time.

    handle: what a launch takes. address: what others know it by.
    """

    def __init__(self) -> None:
        self.address = int(_call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value))
        self.handle = LaunchStream.from_handle(self.address)

    def synchronize(self) -> None:
        """Wait until all that was put in is done."""
        _call(driver.cuStreamSynchronize, self.address)

    def wait(self, event: "Event") -> None:
        """Do what is put in from now on after the event."""
        _call(driver.cuStreamWaitEvent, self.address, event.address, 0)


class Event:
    """A place in a stream."""

    def __init__(self, stream: Stream):
        self.address = int(_call(driver.cuEventCreate, 0))
        _call(driver.cuEventRecord, self.address, stream.address)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            _call(driver.cuEventDestroy, self.address)  # once it is done, the driver says

    def done(self) -> bool:
        return driver.cuEventQuery(self.address)[0] != driver.CUresult.CUDA_ERROR_NOT_READY

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""
        _call(driver.cuEventSynchronize, self.address)

    def seconds_since(self, earlier: "Event") -> float:
        """Between two events that the streams have come to."""
        return _call(driver.cuEventElapsedTime, earlier.address, self.address) / 1e3


def synchronize() -> None:
    """Wait until the device has done all it was given; raises what went wrong there."""
    _call(driver.cuCtxSynchronize)
