"""Anonymous shared memory with one row per rank, and the heap of a row.

The memory has no name (`memfd_create`; on macOS a temporary file that is unlinked at once), so nothing can be left
behind, however the processes die. Pages are allocated when they are first touched: a row may be as large as the
machine's memory, and is smaller only where a limit of this process (`ulimit -v`, `ulimit -f`) is below that.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minidl.streams import fill_standard_streams
from minidl.ulimits import explained, limit, mebibytes

LINE = 64  # bytes of a cache line: one writer each, so that ranks do not slow each other down
WORDS = LINE // 8


class Arena:
    """`rows` rows of `row_bytes` each: by itself an equal share of what there is, but `least`.

    A process that gets `fd` maps the same memory. OSError, with the limit in the way, if it cannot be had.
    """

    def __init__(self, rows: int, row_bytes: int | None = None, fd: int | None = None, least: int = mmap.PAGESIZE):
        self.rows = rows
        self.row_bytes = row_bytes or max(least, _room() // rows // mmap.PAGESIZE * mmap.PAGESIZE)
        total = rows * self.row_bytes
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_NORESERVE", 0)
        made = None
        try:
            if fd is None:
                fd = made = _anonymous_file(total)
            self.map = mmap.mmap(fd, total, flags=flags)
        except OSError as error:
            if made is not None:
                os.close(made)
            raise explained(error, f"cannot share {mebibytes(total)} of memory between processes") from error
        self.fd = fd
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.words = memoryview(self.map).cast("q")  # 8-byte words: reading one is a single load
        self._address = self.bytes.__array_interface__["data"][0]

    def word(self, row: int, offset: int) -> int:
        """Index into `words` of the byte `offset` of `row`."""
        return (row * self.row_bytes + offset) // 8

    def view(self, row: int, offset: int, shape: tuple[int, ...], dtype) -> np.ndarray:
        """The array that lies at `offset` of `row`."""
        start = row * self.row_bytes + offset
        dtype = np.dtype(dtype)
        return self.bytes[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def lend(
        self, row: int, offset: int, shape: tuple[int, ...], dtype, give_back: Callable[[int], None]
    ) -> np.ndarray:
        """The array at `offset` of `row`; `give_back(offset)` is called when it and all views of it are dropped."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        # A view's base is the last array whose own base is no array: this one, which every view of the result keeps.
        block = np.frombuffer(self.map, np.uint8, nbytes, row * self.row_bytes + offset)
        weakref.finalize(block, give_back, offset).atexit = False
        return block.view(dtype).reshape(shape)

    def offset_in(self, row: int, x: np.ndarray) -> int | None:
        """Where the contiguous array `x` lies, from the start of `row`: negative in rows before.

        None if it does not lie in the arena or is not contiguous.
        """
        offset = x.__array_interface__["data"][0] - self._address
        return offset - row * self.row_bytes if 0 <= offset < self.map.size() and x.flags.c_contiguous else None


class Heap:
    """Allocates arrays in one row of an arena, from byte `start` on. Memory is free again when its array is dropped."""

    def __init__(self, arena: Arena, row: int, start: int):
        self.arena, self.row = arena, row
        self._top = start
        self._free: dict[int, list[int]] = {}  # size of a block -> offsets of free ones

    def empty(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An uninitialised array. MemoryError when the row is full."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(LINE, 1 << (nbytes - 1).bit_length()) if nbytes < 1 << 20 else -(-nbytes >> 20) << 20
        blocks = self._free.get(size)
        if blocks:
            offset = blocks.pop()
        else:
            offset = self._top
            if offset + size > self.arena.row_bytes:
                raise MemoryError(f"the shared row of rank {self.row} ({self.arena.row_bytes >> 20} MiB) is full")
            self._top += size
        return self.arena.lend(self.row, offset, shape, dtype, self._free.setdefault(size, []).append)


def _anonymous_file(size: int) -> int:
    fill_standard_streams()
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("minidl")
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def _room() -> int:
    """Bytes that may be shared: the memory of this machine, or what the limits of this process leave of it.

    Half of the addresses that are left, as the processes that map the memory too need some for themselves.
    """
    addresses, file = limit("RLIMIT_AS"), limit("RLIMIT_FSIZE")
    rooms = [memory_bytes()]
    if addresses is not None:
        rooms.append((addresses - _mapped()) // 2)
    if file is not None:
        rooms.append(file)
    return max(0, min(rooms))


def _mapped() -> int:
    """Bytes of addresses that this process has taken; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    except OSError:
        return 0


def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
