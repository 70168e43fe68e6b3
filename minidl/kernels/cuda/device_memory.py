"""The memory of the GPU: blocks that were freed are kept for the next array, since asking the driver takes long.

A freed block may be handed out at once, though the GPU still works with it: what the same stream does next comes later
anyway. Blocks that uploads write beside the computation are kept apart, and these wait until it is done with them. A
block that is still being copied to the host serves again when the copy is done. One thread of the host uses all this.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from minidl.kernels.cuda.target import EMULATED
from minidl.units import scaled

if EMULATED:
    from minidl.kernels.cuda import emulated_device as device
else:
    from minidl.kernels.cuda import numba_device as device  # type: ignore[no-redef]

ROUND = 512  # bytes: sizes are multiples of it, so that blocks fit again

compute = device.Stream()  # in order with what other libraries give to no stream
uploads, downloads = (device.Stream(beside=True) for _ in range(2))  # a GPU copies both ways at once


def rounded(nbytes: int) -> int:
    """The size of the block for so many bytes."""
    return -(-max(nbytes, 1) // ROUND) * ROUND


class Pool:
    """Freed blocks by size. held: bytes of blocks that arrays use. kept: of those that none uses."""

    def __init__(self) -> None:
        self.free: dict[int, list] = defaultdict(list)  # size -> (block, event after its last use or None)
        self.leaving: deque[tuple] = deque()  # (when its copy to the host is done, size, what `free` gets then)
        self.held = self.kept = 0
        self._remembering: list = []

    def remembers(self, most: int) -> Callable:
        """A decorator: what the function makes of the `most` last arguments is kept, until memory is given back."""

        def decorate(function):
            self._remembering.append(lru_cache(most)(function))
            return self._remembering[-1]

        return decorate

    def take(self, nbytes: int, for_upload: bool):
        """A block of at least `nbytes`; MemoryError with what was asked and what is held."""
        size = rounded(nbytes)
        while self.leaving and self.leaving[0][0].done():
            _, key, entry = self.leaving.popleft()
            self.free[key].append(entry)
        free = self.free[-size if for_upload else size]
        if free:
            block, used = free.pop()
            self.kept -= size
            if used is not None:
                uploads.wait(used)
        else:
            block = self._allocate(nbytes, size)
        self.held += size
        return block

    def _allocate(self, nbytes: int, size: int):
        try:
            return device.allocate(size)
        except device.OutOfMemory:
            self.empty()
        try:
            return device.allocate(size)
        except device.OutOfMemory:
            raise MemoryError(
                f"the GPU is out of memory: {scaled(nbytes, 'B')} asked for, {scaled(self.held, 'B')} held by arrays, "
                f"{scaled(device.free_memory(), 'B')} free"
            ) from None

    def give_back(self, block, for_upload: bool, copied) -> None:
        """Keep a block that no array uses any more. copied: when its last copy to the host is done, None without."""
        size = block.nbytes
        self.held -= size
        self.kept += size
        key, entry = -size if for_upload else size, (block, device.Event(compute) if for_upload else None)
        if copied is None:
            self.free[key].append(entry)
        else:
            self.leaving.append((copied, key, entry))

    def empty(self) -> None:
        """Give all kept blocks back to the device, once it is done with them."""
        for function in self._remembering:
            function.cache_clear()
        # Arrays may be freed meanwhile, whenever Python collects garbage: their blocks are kept anew.
        free, leaving = self.free, self.leaving
        self.free, self.leaving = defaultdict(list), deque()
        device.synchronize()
        for block, _ in (*(entry for entries in free.values() for entry in entries), *(entry for *_, entry in leaving)):
            self.kept -= block.nbytes
            device.release(block)


pool = Pool()


class Storage:
    """The memory of an array and its views: `nbytes` of a block, which goes back to the pool with the last of them."""

    __slots__ = ("block", "nbytes", "for_upload", "copied", "__weakref__")

    def __init__(self, nbytes: int, for_upload: bool = False):
        """for_upload: a copy from the host is to write it, beside the computation.

        copied: an event, when the last copy to the host beside the computation is done.
        """
        self.block: Any = None
        self.block = pool.take(nbytes, for_upload)
        self.nbytes, self.for_upload = nbytes, for_upload
        self.copied: device.Event | None = None

    def __del__(self) -> None:
        if self.block is not None:
            pool.give_back(self.block, self.for_upload, self.copied)
