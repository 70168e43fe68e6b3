"""The emulated GPU: NumPy's memory, and streams in which everything is done at once.

numba_device.py has the same names for a real one.
"""

import ctypes
import time

import numpy as np

from minidl.kernels.cuda.emulated_memory import DeviceMemory, Storage

NAME = "emulated"
MULTIPROCESSORS = 2
MEMORY = 1 << 30  # bytes

_held = 0


class OutOfMemory(Exception):
    """The device has not as much memory left."""


def count() -> int:
    return 1


def allocate(nbytes: int) -> Storage:
    """New memory of the device; OutOfMemory if it has not as much."""
    global _held
    if _held + nbytes > MEMORY:
        raise OutOfMemory
    _held += nbytes
    return Storage(nbytes)


def release(storage: Storage) -> None:
    """Give the memory back to the device."""
    global _held
    _held -= storage.nbytes


def foreign(address: int, nbytes: int) -> Storage:
    """Memory from `address` on that another library holds."""
    storage = Storage(0)
    if nbytes:
        storage.bytes, storage.nbytes = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)), nbytes
    return storage


def free_memory() -> int:
    """Bytes of the device that nobody holds."""
    return MEMORY - _held


def total_memory() -> int:
    """Bytes of the device, whoever holds them."""
    return MEMORY


def elements(storage: Storage, offset: int, count: int, dtype) -> DeviceMemory:
    """`count` elements from the byte `offset` on, as an argument of a kernel."""
    return DeviceMemory(storage, offset, count, dtype)


def launch(kernel, blocks, threads, stream: "Stream", arguments) -> None:
    """Run a kernel on a grid of `blocks` of `threads`, each an int or a tuple, in the stream's turn."""
    kernel[blocks, threads](*arguments)


def copy_within(target: Storage, to: int, source: Storage, start: int, nbytes: int, stream: "Stream") -> None:
    """Copy bytes from one place of the device's memory to another."""
    target.bytes[to : to + nbytes] = source.bytes[start : start + nbytes]


def address(storage: Storage) -> int:
    """Of the first byte."""
    return storage.bytes.ctypes.data


def to_device(storage: Storage, offset: int, values: np.ndarray, stream) -> None:
    """Copy a contiguous host array to the byte `offset`."""
    storage.bytes[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)


def to_host(values: np.ndarray, storage: Storage, offset: int, stream) -> None:
    """Copy the bytes from `offset` on to a contiguous host array."""
    values.reshape(-1).view(np.uint8)[:] = storage.bytes[offset : offset + values.nbytes]


def pinned(nbytes: int) -> np.ndarray:
    """Bytes of the host from and to which copies can be asynchronous."""
    return np.empty(nbytes, np.uint8)


class Stream:
    """An order of work: what is put in one is done in turn, what is in two at the same time.

    handle: what a launch takes. address: what others know it by.
    """

    handle, address = 0, 1  # 1: the default stream

    def synchronize(self) -> None:
        """Wait until all that was put in is done."""

    def wait(self, event: "Event") -> None:
        """Do what is put in from now on after the event."""


class Event:
    """A place in a stream."""

    def __init__(self, stream: Stream):
        self.time = time.perf_counter()

    def done(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""

    def seconds_since(self, earlier: "Event") -> float:
        """Between two events that the streams have come to."""
        return self.time - earlier.time


def synchronize() -> None:
    """Wait until the device has done all it was given; raises what went wrong there."""
