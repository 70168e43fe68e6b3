"""Processes of one machine that meet in the shared arena: what each announces there, and how the others find it.

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
from minidl.parallel.group import ProcessGroup
from minidl.parallel.handle import Steps
from minidl.parallel.runtime.announcements import NUMBER_BITS
from minidl.parallel.runtime.channel import HEADER, Channel, channel_bytes
from minidl.parallel.runtime.process import GROUPS, Process, has_returned
from minidl.parallel.runtime.stopping import begins
from minidl.ulimits import mebibytes

# Words of a rank's line in a group: two counts, then twice an announcement: the digest of the call, and the offset of
# its array beside the number of the call
ARRIVED, DONE, ANNOUNCEMENTS = range(3)


class MeetingGroup(ProcessGroup):
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
        self._table: np.ndarray | None = None  # numbers for the others, in this rank's row
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

    def split(self, color: int, key: int | None = None) -> MeetingGroup:
        mine = np.array([[color, self.rank if key is None else key, self.rank, self.process.free_block]])
        everyone = self.all_gather(mine).tolist()
        block = max(free for _, _, _, free in everyone)  # free in every row
        chosen = sorted((k, rank) for c, k, rank, _ in everyone if c == color)
        members = tuple(self.members[rank] for _, rank in chosen)
        return type(self)(self.process, members, block, f"color {color}")

    # Meeting

    def _in_row(self, x: np.ndarray) -> tuple[np.ndarray, int]:
        """`x`, or a copy of it in this rank's row if it lies elsewhere, and where it lies there."""
        offset = self.process.offset_of(x)
        if offset is None:
            staged = self.heap.empty(x.shape, x.dtype)
            np.copyto(staged, x)
            x, offset = staged, self.process.offset_of(staged)
        return x, offset

    def _arrive(self, offset: int, name: str, options: str = "", shape: tuple | None = None, char: str = "") -> Steps:
        """Announce a call and where in its row this rank's array lies; wait until every rank has announced the same.

        Returns the announcements of all ranks. The ranks must have told the same but for `offset`.
        """
        words, own = self._words, self._own
        self.status.tell_call(name)
        call, number = self._calls[name, options, shape, char]
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
        return tuple([words[line + place + 1] for line in self._lines])

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
        offsets = [word >> NUMBER_BITS for word in announced]
        return [self._view(rank, offset, start, stop, dtype) for rank, offset in enumerate(offsets)]

    def _view(self, rank: int, offset: int, start: int, stop: int, dtype: np.dtype) -> np.ndarray:
        """Elements start to stop of the array that lies at `offset` in the row of `rank`, flat."""
        return self.arena.view(self.members[rank], offset + start * dtype.itemsize, (stop - start,), dtype)

    def _write_table(self, *numbers: int) -> int:
        """Have the others find `numbers` in this rank's row until it leaves; returns where."""
        if self._table is None:
            self._table = self.heap.empty((max(HEADER, 1 + 2 * self.size),), np.int64)
        self._table[: len(numbers)] = numbers
        return self.process.offset_of(self._table)

    def _read_table(self, rank: int, announced: tuple[int, ...], count: int) -> list[int]:
        """The first `count` numbers of the table of `rank`."""
        start = self.arena.word(self.members[rank], announced[rank] >> NUMBER_BITS)
        return self._words[start : start + count].tolist()

    def _channel(self, src: int, dst: int) -> Channel:
        if (src, dst) not in self._channels:
            self._channels[src, dst] = Channel(
                self.arena, self.heap, self.members[src], self.members[dst],
                written_at=self.block + LINE + dst * channel_bytes(), read_at=self.block + LINE + src * channel_bytes(),
            )  # fmt: skip
        return self._channels[src, dst]
