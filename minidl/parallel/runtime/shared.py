"""A process group whose ranks are processes of one machine, communicating through the shared arena.

No locks: every word has one writer, and a rank that waits polls a word of another and yields the processor in between. A
rank announces what it brings to a collective in its own line (which call, where its array lies in its row), raises its
`arrived` count, and waits for those of the others; at the end it raises `done` and waits again, so that no array is
touched too early or too late. Stores of x86 stay in order, as a flag written after its data needs.
"""

from __future__ import annotations

import os
import time

import numpy as np

from minidl.arena import LINE, Arena, Heap
from minidl.parallel.group import ProcessGroup, Steps
from minidl.parallel.runtime.channel import Channel, channel_bytes
from minidl.tensor import Tensor

CONTROL_BYTES = 64 << 20  # of each row: the lines of its groups; untouched pages cost nothing
ABORT = 0  # word of row 0: not 0 when the run must end
STATUS = LINE  # offset in a row of what the rank is doing: a count, then text
STATUS_BYTES = 4 * LINE
GROUPS = STATUS + STATUS_BYTES  # offset in a row of the lines of the first group
BLOCK = 65536  # elements summed at a time: two float32 blocks fit in a 1 MiB cache

# Words of a rank's line in a group
ARRIVED, DONE, CODE, OFFSET, NBYTES = range(5)


class Aborted(RuntimeError):
    """Another rank failed, and this one must end too."""


class Status:
    """What a rank is doing, for the launcher to read if the run stops: a count that grows, and a name."""

    def __init__(self, arena: Arena, row: int):
        self._words, self._count = arena.words, arena.word(row, STATUS)
        self._text = arena.view(row, STATUS + 8, (STATUS_BYTES - 8,), np.uint8).data
        self._last = None

    def tell(self, what: str) -> None:
        self._words[self._count] += 1
        if what is not self._last:
            self._last = what
            text = what.encode()[: STATUS_BYTES - 9] + b"\0"
            self._text[: len(text)] = text

    def read(self) -> tuple[int, str]:
        return self._words[self._count], bytes(self._text).split(b"\0")[0].decode(errors="replace")


class SharedMemoryGroup(ProcessGroup):
    """members: the arena rows of the ranks, in rank order. block: where the group's lines begin, the same in every row."""

    def __init__(self, arena: Arena, heap: Heap, members: tuple[int, ...], block: int = GROUPS, axis: str = "world"):
        super().__init__(members.index(heap.row), len(members), axis)
        self.arena, self.heap, self.members, self.block = arena, heap, members, block
        self.status = Status(arena, heap.row)
        self._generation = 0
        self._words = arena.words
        self._lines = [arena.word(row, block) for row in members]
        self._own = self._lines[self.rank]
        self._others = [line for line in self._lines if line != self._own]
        self._next_block = block + LINE + self.size * channel_bytes()
        self._channels: dict[tuple[int, int], Channel] = {}

    def pause(self) -> None:
        os.sched_yield()
        if self._words[ABORT]:
            raise Aborted("another rank failed")

    def empty(self, shape: tuple[int, ...], dtype="float32") -> Tensor:
        return Tensor(self.heap.empty(tuple(shape), dtype))

    def split(self, color: int, key: int | None = None) -> SharedMemoryGroup:
        mine = np.array([[color, self.rank if key is None else key, self.rank, self._next_block]])
        everyone = self.all_gather(mine)
        self._next_block = int(everyone[:, 3].max())  # the same free block in every row
        chosen = sorted((k, rank) for c, k, rank, _ in everyone.tolist() if c == color)
        group = SharedMemoryGroup(
            self.arena, self.heap, tuple(self.members[rank] for _, rank in chosen), self._next_block, f"color {color}"
        )
        self._next_block += LINE + self.size * channel_bytes()
        return group

    # Meeting

    def _arrive(self, name: str, x: np.ndarray | None = None, root: int = 0) -> Steps:
        """Announce this call and wait until every rank has announced the same. Returns the ranks' arrays as lines say."""
        words, own = self._words, self._own
        self.status.tell(name)
        self._generation = generation = self._generation + 1
        code = CODES.index(name) << 8 | root
        nbytes = -1 if x is None else x.nbytes
        words[own + CODE], words[own + NBYTES] = code, nbytes
        words[own + OFFSET] = -1 if x is None else self.arena.offset_in(self.heap.row, x)
        words[own + ARRIVED] = generation
        for line in self._others:
            while words[line + ARRIVED] < generation:
                yield
        self.matched = time.perf_counter()
        for rank, line in enumerate(self._lines):
            if words[line + CODE] != code or words[line + NBYTES] != nbytes:
                theirs, size = words[line + CODE], words[line + NBYTES]
                raise RuntimeError(
                    f"ranks disagree: rank {self.rank} calls {name} of {max(nbytes, 0)} bytes (root {root}), "
                    f"rank {rank} calls {CODES[theirs >> 8]} of {max(size, 0)} bytes (root {theirs & 255})"
                )

    def _leave(self) -> Steps:
        """Wait until every rank has finished with the arrays of this collective."""
        words, generation = self._words, self._generation
        words[self._own + DONE] = generation
        for line in self._others:
            while words[line + DONE] < generation:
                yield

    def _staged(self, x: np.ndarray) -> np.ndarray:
        """`x` if it lies in this rank's row, else a copy that does."""
        if self.arena.offset_in(self.heap.row, x) is not None:
            return x
        staged = self.heap.empty(x.shape, x.dtype)
        np.copyto(staged, x)
        return staged

    def _arrays(self, like: np.ndarray, start: int, stop: int) -> list[np.ndarray]:
        """Elements start to stop of every rank's array, flat, in rank order."""
        offset = start * like.itemsize
        return [
            self.arena.view(row, self._words[line + OFFSET] + offset, (stop - start,), like.dtype)
            for row, line in zip(self.members, self._lines)
        ]

    def _share(self, size: int) -> tuple[int, int]:
        """The elements of a flat array that this rank reduces: whole cache lines where it can be."""
        step = -(-size // self.size // 16) * 16 or 16
        return min(self.rank * step, size), min((self.rank + 1) * step, size)

    # Collectives

    def _barrier(self) -> Steps:
        yield from self._arrive("barrier")

    def _all_reduce(self, x: np.ndarray, ufunc: np.ufunc) -> Steps:
        """Each rank reduces its share of all rows, in rank order, and writes it to all rows."""
        staged = self._staged(x)
        yield from self._arrive("all_reduce", staged)
        rows = self._arrays(staged, *self._share(staged.size))
        for start in range(0, rows[0].size, BLOCK):
            blocks = [row[start : start + BLOCK] for row in rows]
            _reduce_into(blocks[0], blocks, ufunc)
            for block in blocks[1:]:
                np.copyto(block, blocks[0])
        yield from self._leave()
        if staged is not x:
            np.copyto(x, staged)
        return x

    def _reduce(self, x: np.ndarray, ufunc: np.ufunc, dst: int) -> Steps:
        staged = self._staged(x)
        yield from self._arrive("reduce", staged, dst)
        if self.rank == dst:
            rows = self._arrays(staged, 0, staged.size)
            total = rows[0].copy()
            _reduce_into(total, rows, ufunc)
            np.copyto(x, total.reshape(x.shape))
        yield from self._leave()
        return x

    def _reduce_scatter(self, x: np.ndarray, ufunc: np.ufunc) -> Steps:
        staged = self._staged(x)
        yield from self._arrive("reduce_scatter", staged)
        share = staged.size // self.size
        rows = self._arrays(staged, self.rank * share, (self.rank + 1) * share)
        total = np.empty((x.shape[0] // self.size, *x.shape[1:]), x.dtype)
        np.copyto(total.reshape(-1), rows[0])
        _reduce_into(total.reshape(-1), rows, ufunc)
        yield from self._leave()
        return total

    def _all_gather(self, x: np.ndarray) -> Steps:
        staged = self._staged(x)
        yield from self._arrive("all_gather", staged)
        joined = np.empty((self.size * x.shape[0], *x.shape[1:]), x.dtype)
        np.concatenate(self._arrays(staged, 0, staged.size), out=joined.reshape(-1))
        yield from self._leave()
        return joined

    def _all_to_all(self, x: np.ndarray) -> Steps:
        staged = self._staged(x)
        yield from self._arrive("all_to_all", staged)
        share = staged.size // self.size
        parts = self._arrays(staged, self.rank * share, (self.rank + 1) * share)
        joined = np.concatenate(parts).reshape(x.shape)
        yield from self._leave()
        return joined

    def _broadcast(self, x: np.ndarray, src: int) -> Steps:
        staged = self._staged(x)
        yield from self._arrive("broadcast", staged, src)
        if self.rank != src:
            np.copyto(x, self._arrays(staged, 0, staged.size)[src].reshape(x.shape))
        yield from self._leave()
        return x

    # Point to point

    def _channel(self, src: int, dst: int) -> Channel:
        if (src, dst) not in self._channels:
            self._channels[src, dst] = Channel(
                self.arena, self.heap, self.members[src], self.members[dst],
                written_at=self.block + LINE + dst * channel_bytes(), read_at=self.block + LINE + src * channel_bytes(),
            )  # fmt: skip
        return self._channels[src, dst]

    def _send(self, x: np.ndarray, dst: int) -> Steps:
        self.status.tell("send")
        channel = self._channel(self.rank, dst)
        while not channel.has_room():
            yield
        self.matched = time.perf_counter()
        channel.put(x)

    def _recv(self, x: np.ndarray | None, src: int) -> Steps:
        self.status.tell("recv")
        channel = self._channel(src, self.rank)
        while not channel.has_message():
            yield
        self.matched = time.perf_counter()
        return channel.get(x)


CODES = ("barrier", "all_reduce", "reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")


def _reduce_into(total: np.ndarray, rows: list[np.ndarray], ufunc: np.ufunc) -> None:
    """total = rows[0] (which it already holds) reduced with the other rows, in order: the same bits on every rank."""
    for row in rows[1:]:
        ufunc(total, row, out=total)


