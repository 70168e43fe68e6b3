"""A process group whose ranks are processes of one machine, communicating through the shared arena.

No locks: every word has one writer, and a rank that waits polls a word of another and yields the processor in between.
A rank announces in its own line what it brings to a collective (which call, and where its array lies in its row),
raises its count `arrived`, and waits for those of the others. At the end it raises `done` and waits again, so that no
array is touched too early or too late. Announcements take turns between two places of the line: a rank may be one
collective ahead of another that still reads, never two. Stores of x86 stay in order, as a flag written after its data
needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from minidl.arena import LINE
from minidl.kernels.cpu.blocks import compiled, use_compiled
from minidl.parallel.group import REDUCTIONS, ProcessGroup, Steps
from minidl.parallel.layout import share_elements
from minidl.parallel.runtime.announcements import NUMBER_BITS
from minidl.parallel.runtime.channel import Channel, channel_bytes
from minidl.parallel.runtime.process import GROUPS, Process, has_returned
from minidl.parallel.runtime.stopping import begins
from minidl.ulimits import mebibytes

BLOCK = 65536  # elements summed at a time: two float32 blocks fit in a 1 MiB cache

# Words of a rank's line in a group: two counts, then twice an announcement: the digest of the call, and the offset of
# its array beside the number of the call
ARRIVED, DONE, ANNOUNCEMENTS = range(3)


class SharedMemoryGroup(ProcessGroup):
    """members: the arena rows of the ranks, in rank order. block: where the group's lines begin in every row.

    name: for errors.
    """

    def __init__(self, process: Process, members: tuple[int, ...], block: int = GROUPS, name: str = "world"):
        super().__init__(members.index(process.row), len(members))
        self.process, self.members, self.block, self.name = process, members, block, name
        self.arena, self.heap, self.status = process.arena, process.heap, process.status
        self._words, self._calls = self.arena.words, process.calls
        self._lines = [self.arena.word(row, block) for row in members]
        self._own = self._lines[self.rank]
        self._others = [(rank, line) for rank, line in enumerate(self._lines) if line != self._own]
        self._generation = 0  # collectives begun
        self._channels: dict[tuple[int, int], Channel] = {}
        self._views = lru_cache(1024)(self._make_views)  # the same arrays are reduced in every step
        process.groups.append(self)
        process.free_block = block + LINE + self.size * channel_bytes()
        if process.free_block > process.control_bytes:
            raise MemoryError(
                f"there is no room for more than {len(process.groups) - 1} process groups of {self.size} ranks in "
                f"{mebibytes(process.control_bytes)} of a shared row of {mebibytes(self.arena.row_bytes)}"
            )

    def pause(self) -> None:
        self.process.pause()

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return self.heap.empty(shape, dtype)

    def tell(self, instruction: str) -> None:
        self.status.tell(instruction)

    def report(self, message) -> None:
        self.process.report(message)

    def meanwhile(self, action: Callable[[], None]) -> None:
        self.process.meanwhile = action

    def begins(self, step: int) -> bool:
        return begins(self.process, step)

    def split(self, color: int, key: int | None = None) -> SharedMemoryGroup:
        mine = np.array([[color, self.rank if key is None else key, self.rank, self.process.free_block]])
        everyone = self.all_gather(mine).tolist()
        block = max(free for _, _, _, free in everyone)  # free in every row
        chosen = sorted((k, rank) for c, k, rank, _ in everyone if c == color)
        members = tuple(self.members[rank] for _, rank in chosen)
        return SharedMemoryGroup(self.process, members, block, f"color {color}")

    def _steps(self, name, x, *arguments) -> Steps:
        return COLLECTIVES[name](self, x, *arguments)

    # Meeting

    def _arrive(self, name: str, x: np.ndarray | None = None, op: str = "sum", root: int = 0) -> Steps:
        """Announce this call and wait until every rank has announced the same.

        Returns `x`, or a copy of it in this rank's row if it lies elsewhere, and what all ranks have announced.
        """
        words, own, offset = self._words, self._own, 0
        self.status.tell_call(name)
        if x is None:
            call, number = self._calls[name]
        else:
            call, number = self._calls[name, op, root, x.shape, x.dtype.char]
            offset = self.process.offset_of(x)
            if offset is None:
                staged = self.heap.empty(x.shape, x.dtype)
                np.copyto(staged, x)
                x, offset = staged, self.process.offset_of(staged)
        self._generation = generation = self._generation + 1
        place = ANNOUNCEMENTS + 2 * (generation & 1)
        words[own + place], words[own + place + 1] = call, offset << NUMBER_BITS | number
        words[own + ARRIVED] = generation
        for rank, line in self._others:
            if words[line + ARRIVED] < generation:
                yield from self._reached(rank, line + ARRIVED, generation, name)
        self.matched = time.perf_counter()
        for rank, line in self._others:
            if words[line + place] != call:
                raise RuntimeError(
                    f"ranks of the group {self.name!r} disagree: rank {self.rank} calls "
                    f"{self._described(self.rank, place)}, rank {rank} calls {self._described(rank, place)}"
                )
        return x, tuple([words[line + place + 1] for line in self._lines])

    def _leave(self, name: str) -> Steps:
        """Wait until every rank has finished with the arrays of this collective."""
        words, generation = self._words, self._generation
        words[self._own + DONE] = generation
        for rank, line in self._others:
            if words[line + DONE] < generation:
                yield from self._reached(rank, line + DONE, generation, name)

    def _reached(self, rank: int, word: int, count: int, name: str) -> Steps:
        """Wait until `rank` has raised its `word` to `count`. RuntimeError if it has returned, and never will."""
        words, process = self._words, self.process
        while words[word] < count:
            # All that a rank writes is there before it is known to have returned: looked at in this order.
            if process.some_returned and has_returned(self.arena, self.members[rank]) and words[word] < count:
                raise RuntimeError(
                    f"rank {self.rank} of the group {self.name!r} waits in {name} for rank {rank}, which has returned"
                )
            yield

    def _described(self, rank: int, place: int) -> str:
        """What `rank` calls, by its announcement in `place`."""
        number = self._words[self._lines[rank] + place + 1] & (1 << NUMBER_BITS) - 1
        return self._calls.text(self.members[rank], number)

    def _make_views(self, announced: tuple[int, ...], start: int, stop: int, dtype: np.dtype) -> list[np.ndarray]:
        """Elements start to stop of every rank's array, flat, in rank order."""
        skip = start * dtype.itemsize
        return [
            self.arena.view(row, (word >> NUMBER_BITS) + skip, (stop - start,), dtype)
            for row, word in zip(self.members, announced, strict=True)
        ]

    def _share(self, size: int) -> tuple[int, int]:
        """The elements of a flat array that this rank reduces: whole cache lines where it can be."""
        step = share_elements(size, self.size)
        return min(self.rank * step, size), min((self.rank + 1) * step, size)

    # Collectives

    def _barrier(self, x: None) -> Steps:
        yield from self._arrive("barrier")

    def _all_reduce(self, x: np.ndarray, op: str) -> Steps:
        """Each rank reduces its share of all rows, in rank order, and writes it to all rows."""
        shared, announced = yield from self._arrive("all_reduce", x, op)
        rows = self._views(announced, *self._share(x.size), x.dtype)
        for start in range(0, rows[0].size, BLOCK):
            first, *others = (row[start : start + BLOCK] for row in rows)
            for row in others[:-1]:
                REDUCTIONS[op](first, row, out=first)
            for row in others[-1:]:
                _reduce_both(first, row, op)
            for row in others[:-1]:
                row[...] = first
        yield from self._leave("all_reduce")
        if shared is not x:
            np.copyto(x, shared)
        return x

    def _reduce(self, x: np.ndarray, op: str, dst: int) -> Steps:
        _, announced = yield from self._arrive("reduce", x, op, dst)
        if self.rank == dst:
            first, *others = self._views(announced, 0, x.size, x.dtype)
            total = first.copy()
            for row in others:
                REDUCTIONS[op](total, row, out=total)
            np.copyto(x, total.reshape(x.shape))
        yield from self._leave("reduce")
        return x

    def _reduce_scatter(self, x: np.ndarray, op: str, out: np.ndarray | None) -> Steps:
        """Each rank reduces its share of all rows, its own first: that is where `out` may lie."""
        _, announced = yield from self._arrive("reduce_scatter", x, op)
        if out is None:
            out = np.empty((x.shape[0] // self.size, *x.shape[1:]), x.dtype)
        rows = self._views(announced, self.rank * out.size, (self.rank + 1) * out.size, x.dtype)
        own, *others = rows[self.rank :] + rows[: self.rank]
        total = out.reshape(-1)
        if not others:
            np.copyto(total, own)
        for start in range(0, out.size, BLOCK):
            block = slice(start, start + BLOCK)
            so_far = own[block]
            for row in others:
                so_far = REDUCTIONS[op](so_far, row[block], out=total[block])
        yield from self._leave("reduce_scatter")
        return out

    def _all_gather(self, x: np.ndarray, out: np.ndarray | None) -> Steps:
        _, announced = yield from self._arrive("all_gather", x)
        if out is None:
            out = np.empty((self.size * x.shape[0], *x.shape[1:]), x.dtype)
        for place, row in zip(out.reshape(self.size, x.size), self._views(announced, 0, x.size, x.dtype), strict=True):
            if not np.may_share_memory(place, row):
                np.copyto(place, row)
        yield from self._leave("all_gather")
        return out

    def _all_to_all(self, x: np.ndarray) -> Steps:
        _, announced = yield from self._arrive("all_to_all", x)
        share = x.size // self.size
        joined = np.concatenate(self._views(announced, self.rank * share, (self.rank + 1) * share, x.dtype))
        yield from self._leave("all_to_all")
        return joined.reshape(x.shape)

    def _broadcast(self, x: np.ndarray, src: int) -> Steps:
        _, announced = yield from self._arrive("broadcast", x, root=src)
        if self.rank != src:
            np.copyto(x, self._views(announced, 0, x.size, x.dtype)[src].reshape(x.shape))
        yield from self._leave("broadcast")
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
        self.status.tell_call("send")
        channel = self._channel(self.rank, dst)
        yield from self._reached(dst, *channel.room(), "send")
        self.matched = time.perf_counter()
        channel.put(x)

    def _recv(self, x: np.ndarray | None, src: int) -> Steps:
        self.status.tell_call("recv")
        channel = self._channel(src, self.rank)
        yield from self._reached(src, *channel.message(), "recv")
        self.matched = time.perf_counter()
        return channel.get(x)


def _reduce_both(a: np.ndarray, b: np.ndarray, op: str) -> None:
    """Both become their reduction. Compiled, a sum reads and writes each of them once, in half the time."""
    if op == "sum" and use_compiled(a):
        compiled().add_both(a, b)
    else:
        REDUCTIONS[op](a, b, out=a)
        b[...] = a


COLLECTIVES = {
    "barrier": SharedMemoryGroup._barrier,
    "all_reduce": SharedMemoryGroup._all_reduce,
    "reduce": SharedMemoryGroup._reduce,
    "reduce_scatter": SharedMemoryGroup._reduce_scatter,
    "all_gather": SharedMemoryGroup._all_gather,
    "all_to_all": SharedMemoryGroup._all_to_all,
    "broadcast": SharedMemoryGroup._broadcast,
    "send": SharedMemoryGroup._send,
    "recv": SharedMemoryGroup._recv,
}
