"""The emulated GPU: NumPy's memory, and streams in which everything is done at once, or as late as a GPU may do it.

numba_device.py has the same names for a real one.
"""

import ctypes
import time
from collections import deque
from collections.abc import Callable

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


def release(block: Storage) -> None:
    """Give the memory back to the device."""
    global _held
    _held -= block.nbytes


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


def elements(block: Storage, offset: int, count: int, dtype) -> DeviceMemory:
    """`count` elements from the byte `offset` on, as an argument of a kernel."""
    return DeviceMemory(block, offset, count, dtype)


def launch(kernel, blocks, threads, stream: "Stream", arguments) -> None:
    """Run a kernel on a grid of `blocks` of `threads`, each an int or a tuple, in the stream's turn."""
    stream.put(lambda: kernel[blocks, threads](*arguments))


def copy_within(target: Storage, to: int, source: Storage, start: int, nbytes: int, stream: "Stream") -> None:
    """Copy bytes from one place of the device's memory to another."""

    def copy() -> None:
        target.bytes[to : to + nbytes] = source.bytes[start : start + nbytes]

    stream.put(copy)


def address(block: Storage) -> int:
    """Of the first byte."""
    return block.bytes.ctypes.data


def to_device(block: Storage, offset: int, values: np.ndarray, stream: "Stream") -> None:
    """Copy a contiguous host array to the byte `offset`, in the stream's turn: until then it must not change.

    Who gives other than pinned memory waits for the stream.
    """

    def copy() -> None:
        block.bytes[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)

    stream.put(copy)


def to_host(values: np.ndarray, block: Storage, offset: int, stream: "Stream") -> None:
    """Copy the bytes from `offset` on to a contiguous host array: as `to_device`."""

    def copy() -> None:
        values.reshape(-1).view(np.uint8)[:] = block.bytes[offset : offset + values.nbytes]

    stream.put(copy)


def pinned(nbytes: int) -> np.ndarray:
    """Bytes of the host from and to which copies can be asynchronous; OutOfMemory if it has not as much."""
    return np.empty(nbytes, np.uint8)


class Stream:
    """An order of work: what is put in one is done in turn, what is in two at the same time.

    beside: not even the work that other libraries give to no stream is in order with this one. handle: what a launch
    takes. address: what others know it by. late: do work not at once, but only when somebody waits for it, so that
    tests see what happens when a GPU is behind.
    """

    handle, address = 0, 1  # 1: the default stream

    def __init__(self, beside: bool = False):
        self.late, self._queue = False, deque[Callable[[], None]]()
        self.last, self.arrived = 0, 0  # the places of the work that was put in last and that was done last
        _streams.append(self)

    def put(self, work: Callable[[], None]) -> int:
        """The place of the work in the stream: it is done when the stream has `arrived` there."""
        self._queue.append(work)
        self.last = place = self.last + 1
        if not self.late:
            self.advance(place)
        return place

    def advance(self, place: int) -> None:
        """Do the work up to a place."""
        while self.arrived < place:
            self.arrived += 1
            self._queue.popleft()()

    def synchronize(self) -> None:
        """Wait until all that was put in is done."""
        self.advance(self.last)

    def wait(self, event: "Event") -> None:
        """Do what is put in from now on after the event."""
        self.put(event.reach)


_streams: list[Stream] = []


class Event:
    """A place in a stream."""

    def __init__(self, stream: Stream):
        self._stream, self.time = stream, 0.0
        self._place = stream.put(self._arrive)

    def _arrive(self) -> None:
        self.time = time.perf_counter()

    def reach(self) -> None:
        """Let the stream come to it."""
        self._stream.advance(self._place)

    def done(self) -> bool:
        """Whether the stream has come to it. One that is late comes to it when it has been asked."""
        done = self._stream.arrived >= self._place
        self.reach()
        return done

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""
        self.reach()

    def seconds_since(self, earlier: "Event") -> float:
        """Between two events that the streams have come to."""
        return self.time - earlier.time


def synchronize() -> None:
    """Wait until the device has done all it was given; raises what went wrong there."""
    for stream in _streams:
        stream.advance(stream.last)
