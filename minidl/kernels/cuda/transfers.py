"""Copies between host and GPU that run beside the computation, in streams of their own.

They need pinned memory of the host, which the operating system leaves where it is. The computation waits for a copy to
the GPU only from the next kernel on, a copy back waits for the kernels launched before it; the host waits for neither.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous
from minidl.kernels.cuda.memory import ROUND, Storage, compute, device, downloads, uploads


class Staging:
    """Pinned memory, which takes long to make: used again when arrays are gone and the copies from them done."""

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray]] = defaultdict(list)
        self.leaving: deque[tuple[np.ndarray, device.Event | None]] = deque()
        self.owners: dict[int, device.Event | None] = {}  # id of the owner of an array -> its last copy

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        while self.leaving and (self.leaving[0][1] is None or self.leaving[0][1].done()):
            block, _ = self.leaving.popleft()
            self.free[block.nbytes].append(block)
        nbytes = math.prod(shape) * dtype.itemsize
        size = -(-max(nbytes, 1) // ROUND) * ROUND
        block = self.free[size].pop() if self.free[size] else device.pinned(size)
        owner = _Owner(block)
        self.owners[id(owner)] = None
        weakref.finalize(owner, self._leave, id(owner), block)
        return np.asarray(owner)[:nbytes].view(dtype).reshape(shape)

    def owner(self, x: np.ndarray) -> int | None:
        """The key in `owners` of the pinned memory in which x lies; None if it lies elsewhere."""
        base = x
        while isinstance(base, np.ndarray):
            base = base.base
        return id(base) if id(base) in self.owners else None

    def _leave(self, owner: int, block: np.ndarray) -> None:
        self.leaving.append((block, self.owners.pop(owner)))


class _Owner:
    """What arrays in one block of pinned memory have as their base."""

    def __init__(self, block: np.ndarray):
        self.__array_interface__ = block.__array_interface__


staging = Staging()


def pinned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """A new array of the host in pinned memory."""
    return staging.take(shape, np.dtype(dtype))


def is_pinned(x: np.ndarray) -> bool:
    """Whether the array of the host lies in pinned memory."""
    return staging.owner(x) is not None


def upload(values: np.ndarray) -> tuple[CudaArray, device.Event, device.Event]:
    """Begin to copy a contiguous pinned array to the GPU -> the new array, and when the copy begins and ends."""
    out = CudaArray(values.shape, values.dtype, Storage(values.nbytes, for_upload=True))
    start = device.Event(uploads)
    if values.size:
        device.to_device(out.storage.block, 0, values, uploads)
    end = device.Event(uploads)
    staging.owners[staging.owner(values)] = end
    compute.wait(end)
    return out, start, end


class Download:
    """A copy to the host under way, from `start` to `end`."""

    under_way: deque[Download] = deque()  # their sources must not be freed before the copies are done

    def __init__(self, x: CudaArray):
        x = contiguous(x)
        while self.under_way and self.under_way[0].done():
            self.under_way.popleft()
        downloads.wait(device.Event(compute))
        self.values, self._source = pinned(x.shape, x.dtype), x
        self.start = device.Event(downloads)
        if x.size:
            device.to_host(self.values, x.storage.block, x.offset * x.dtype.itemsize, downloads)
        self.end = device.Event(downloads)
        self.under_way.append(self)

    def done(self) -> bool:
        return self.end.done()

    def numpy(self) -> np.ndarray:
        """The values: waits for them."""
        self.end.synchronize()
        return self.values
