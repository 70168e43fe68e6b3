"""The memory of the GPU: blocks that were freed are kept for the next array, since asking the driver takes long.

A freed block may be handed out at once, though the GPU still works with it: what the same stream does next comes later
anyway. Blocks that uploads write beside the computation are kept apart, and these wait until it is done with them.
"""

from collections import defaultdict

from minidl.kernels.cuda.target import EMULATED
from minidl.units import scaled

if EMULATED:
    from minidl.kernels.cuda import emulated_device as device
else:
    from minidl.kernels.cuda import numba_device as device  # type: ignore[no-redef]

ROUND = 512  # bytes: sizes are multiples of it, so that blocks fit again

compute, uploads, downloads = (device.Stream() for _ in range(3))  # a GPU copies both ways at once


class Pool:
    """Freed blocks by size. held: bytes of blocks that arrays use."""

    def __init__(self) -> None:
        self.free: dict[int, list] = defaultdict(list)  # size -> (block, event after its last use or None)
        self.held = self.kept = 0

    def take(self, nbytes: int, for_upload: bool):
        """A block of at least `nbytes`; MemoryError with what was asked and what is held."""
        size = -(-max(nbytes, 1) // ROUND) * ROUND
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

    def give_back(self, block, for_upload: bool) -> None:
        """Keep a block that no array uses any more."""
        size = block.nbytes
        self.held -= size
        self.kept += size
        self.free[-size if for_upload else size].append((block, device.Event(compute) if for_upload else None))

    def empty(self) -> None:
        """Give all kept blocks back to the device, once it is done with them."""
        device.synchronize()
        for blocks in self.free.values():
            for block, _ in blocks:
                device.release(block)
        self.free.clear()
        self.kept = 0


pool = Pool()


class Storage:
    """The memory of an array and its views: `nbytes` of a block, which goes back to the pool with the last of them."""

    __slots__ = ("block", "nbytes", "for_upload", "__weakref__")

    def __init__(self, nbytes: int, for_upload: bool = False):
        """for_upload: a copy from the host is to write it, beside the computation."""
        self.block = None
        self.block = pool.take(nbytes, for_upload)
        self.nbytes, self.for_upload = nbytes, for_upload

    def __del__(self) -> None:
        if self.block is not None:
            pool.give_back(self.block, self.for_upload)
