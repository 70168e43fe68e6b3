"""Pinned memory of the host: the operating system leaves it where it is, so that the GPU copies beside all else.

It takes long to make, so it is kept and used again when arrays are gone and the copies from and to them are done.
"""

import math
import weakref
from collections import defaultdict, deque

import numpy as np

from minidl.kernels.cuda.device_memory import device, rounded
from minidl.units import scaled


class Staging:
    """Blocks of pinned memory by size. held: bytes of blocks that arrays use."""

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray]] = defaultdict(list)
        self.leaving: deque[tuple[np.ndarray, device.Event | None]] = deque()
        self.owners: dict[int, device.Event | None] = {}  # id of the owner of an array -> its last copy
        self.held = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array; MemoryError with what was asked and what is held."""
        while self.leaving and (self.leaving[0][1] is None or self.leaving[0][1].done()):
            block, _ = self.leaving.popleft()
            self.free[block.nbytes].append(block)
        nbytes = math.prod(shape) * dtype.itemsize
        size = rounded(nbytes)
        block = self.free[size].pop() if self.free[size] else self._allocate(nbytes, size)
        owner = _Owner(block)
        self.owners[id(owner)] = None
        self.held += size
        weakref.finalize(owner, self._leave, id(owner), block)
        return np.asarray(owner)[:nbytes].view(dtype).reshape(shape)

    def _allocate(self, nbytes: int, size: int) -> np.ndarray:
        try:
            return device.pinned(size)
        except device.OutOfMemory:
            self.empty()
        try:
            return device.pinned(size)
        except device.OutOfMemory:
            raise MemoryError(
                f"the host can pin no more memory: {scaled(nbytes, 'B')} asked for, {scaled(self.held, 'B')} held by "
                "arrays"
            ) from None

    def copied(self, x: np.ndarray, event: device.Event) -> None:
        """A copy from or to x, which lies in pinned memory, is done when the event is."""
        self.owners[self._owner(x)] = event

    def holds(self, x: np.ndarray) -> bool:
        """Whether x lies in pinned memory."""
        return self._owner(x) in self.owners

    def _owner(self, x: np.ndarray) -> int:
        """The key in `owners` of the memory in which x lies, if it is pinned."""
        base: object = x
        while isinstance(base, np.ndarray):
            base = base.base
        return id(base)

    def _leave(self, owner: int, block: np.ndarray) -> None:
        self.held -= block.nbytes
        self.leaving.append((block, self.owners.pop(owner)))

    def empty(self) -> None:
        """Give all kept blocks back to the operating system, once the device is done with them."""
        kept = self.free, self.leaving
        self.free, self.leaving = defaultdict(list), deque()
        device.synchronize()
        del kept


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
    return staging.holds(x)
