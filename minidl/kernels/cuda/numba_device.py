"""The GPU: its memory, streams and events by NVIDIA's driver, and what Numba asks of an array.

emulated_device.py has the same names for none. The context, the process's share of the GPU, is Numba's.
"""

import threading
from collections.abc import Callable
from functools import cache

import numpy as np
from cuda.bindings import driver
from cuda.core import Stream as LaunchStream
from cuda.core._utils.cuda_utils import CUDAError
from numba import cuda
from numba.cuda.core import config
from numba.cuda.cudadrv.driver import CudaDriverError

from minidl.kernels.cuda import numba_launch
from minidl.kernels.cuda.numba_launch import Elements
from minidl.notices import warn_once

# mypy: disable-error-code="import-not-found, attr-defined"

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # Numba's, at every launch of few blocks

_entered = threading.local()


def _enter() -> None:
    """Make the context that of this thread, before it first asks the driver for something."""
    if not hasattr(_entered, "context"):
        _entered.context = cuda.current_context()


def _call(function, *arguments):
    """What a function of the driver gives; RuntimeError says in one sentence what it answers instead."""
    _enter()
    error, *results = function(*arguments)
    _check(function, error)
    return results[0] if len(results) == 1 else results


def _check(function, error: driver.CUresult) -> None:
    if error == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemory
    if error != driver.CUresult.CUDA_SUCCESS:
        text = driver.cuGetErrorString(error)[1] or b"unknown error"
        raise RuntimeError(f"the GPU cannot go on: {text.decode()} ({error.name}, from {function.__name__})")


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


def foreign(address: int, nbytes: int) -> Block:
    """Memory from `address` on that another library holds."""
    return Block(address, nbytes)


def free_memory() -> int:
    """Bytes of the device that nobody holds."""
    return _call(driver.cuMemGetInfo)[0]


def total_memory() -> int:
    """Bytes of the device, whoever holds them."""
    return _call(driver.cuMemGetInfo)[1]


def elements(block: Block, offset: int, count: int, dtype) -> Elements:
    """`count` elements from the byte `offset` on, as an argument of a kernel."""
    return Elements(block.address + offset, count, dtype)


def launch(kernel, blocks, threads, stream: "Stream", arguments) -> None:
    """Run a kernel on a grid of `blocks` of `threads`, each an int or a tuple, in the stream's turn.

    RuntimeError as `_call` has it; the kernel may be an earlier one.
    """
    _enter()
    try:
        _way()(kernel, blocks, threads, stream.handle, arguments)
    except (CUDAError, CudaDriverError) as error:
        sentence = " ".join(str(error).split()).split(". ")[0].rstrip(".")  # cuda.core adds advice
        raise RuntimeError(f"the GPU cannot go on: {sentence}") from error


@cache
def _way() -> Callable:
    """How kernels are launched, found out by a trial: directly, or by Numba if that does not compute what it must."""
    try:
        if np.array_equal(*_trial()):
            return numba_launch.launch
        why = "a kernel computed something else"
    except Exception as error:  # whatever does not fit another version of Numba or of the driver
        why = f"{type(error).__name__}: {error}"
    warn_once(f"each launch of a kernel takes the host ten times as long as it could, as Numba has to do it ({why})")
    return numba_launch.launch_by_numba


def _trial() -> tuple[np.ndarray, np.ndarray]:
    """What a kernel computes that is launched directly, and what it must."""
    x = np.arange(4, dtype=np.float32)
    found, stream = np.zeros_like(x), Stream()
    block = allocate(2 * x.nbytes)
    try:
        given = np.append(found, x)
        to_device(block, 0, given, stream)
        arguments = numba_launch.trial_arguments(elements(block, 0, 4, x.dtype), elements(block, x.nbytes, 4, x.dtype))
        numba_launch.launch(numba_launch.trial, 2, (2, 1), stream.handle, arguments)
        to_host(found, block, 0, stream)
        stream.synchronize()
    finally:
        release(block)
    return found, numba_launch.trial_result(x)


def copy_within(target: Block, to: int, source: Block, start: int, nbytes: int, stream: "Stream") -> None:
    """Copy bytes from one place of the device's memory to another."""
    _call(driver.cuMemcpyDtoDAsync, target.address + to, source.address + start, nbytes, stream.address)


def address(block: Block) -> int:
    """Of the first byte."""
    return block.address


# Copies


class Pinned:
    """Memory of the host that stays where it is, so that the device can copy without the processor."""

    def __init__(self, nbytes: int):
        self._start = int(_call(driver.cuMemHostAlloc, nbytes, 0))
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (self._start, False), "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_start"):
            _call(driver.cuMemFreeHost, self._start)


def pinned(nbytes: int) -> np.ndarray:
    """Bytes of the host from and to which copies can be asynchronous; OutOfMemory if it has not as much."""
    return np.asarray(Pinned(max(nbytes, 1)))[:nbytes]


def to_device(block: Block, offset: int, values: np.ndarray, stream: "Stream") -> None:
    """Copy a contiguous host array to the byte `offset`, in the stream's turn: until then it must not change.

    Who gives other than pinned memory waits for the stream.
    """
    _call(driver.cuMemcpyHtoDAsync, block.address + offset, values.ctypes.data, values.nbytes, stream.address)


def to_host(values: np.ndarray, block: Block, offset: int, stream: "Stream") -> None:
    """Copy the bytes from `offset` on to a contiguous host array: as `to_device`."""
    _call(driver.cuMemcpyDtoHAsync, values.ctypes.data, block.address + offset, values.nbytes, stream.address)


# Order


class Stream:
    """An order of work: what is put in one is done in turn, what is in two at the same time.

    beside: not even the work that other libraries give to no stream is in order with this one. handle: what a launch
    takes. address: what others know it by.
    """

    def __init__(self, beside: bool = False):
        flags = driver.CUstream_flags
        flag = flags.CU_STREAM_NON_BLOCKING if beside else flags.CU_STREAM_DEFAULT
        self.address = int(_call(driver.cuStreamCreate, flag.value))
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
        """Whether the stream has come to it."""
        _enter()
        (error,) = driver.cuEventQuery(self.address)
        if error == driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _check(driver.cuEventQuery, error)
        return True

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""
        _call(driver.cuEventSynchronize, self.address)

    def seconds_since(self, earlier: "Event") -> float:
        """Between two events that the streams have come to."""
        return _call(driver.cuEventElapsedTime, earlier.address, self.address) / 1e3


def synchronize() -> None:
    """Wait until the device has done all it was given; raises what went wrong there."""
    _call(driver.cuCtxSynchronize)
