"""The machine: the one rule by which a rank's list of instructions runs.

The list is a legal program as it stands, one instruction after the other. Lanes let an instruction start earlier: each
lane runs its own first-in first-out, and an instruction waits only for those on other lanes that wrote what it reads
(read after write), that read what it overwrites or frees (write after read) or that wrote it before (write after
write). The list repeats, step after step, so some of these are of the step before.

`compile_list` finds out once for whom each instruction waits; `Lanes` say what may run now. The checker drives them
with tags, the worker with kernels, the simulator with clocks. Nothing here knows of those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minidl.parallel.instructions.buffers import Buffer
from minidl.parallel.instructions.instruction import Instruction


class HazardError(ValueError):
    """A list that reads what is not there, overwrites what is, or leaves behind other buffers than it found."""


class Entry(NamedTuple):
    """An instruction, and how many instructions of other lanes must be done before it starts.

    Counts are those of its own step: 0 is the end of the step before, and -1 the last but one instruction of that.
    """

    instruction: Instruction
    after: tuple[tuple[str, int], ...]


Schedule = dict[str, tuple[Entry, ...]]  # lane -> its instructions, in order
Counts = dict[str, int]  # lane -> a place there: how many instructions of the step are done with this one


@dataclass(slots=True)
class _Use:
    """Whether a buffer is held; who wrote or freed it last, None if nobody has in this step; who has read it since."""

    held: bool
    writer: Counts | None = None
    readers: Counts = field(default_factory=dict)


def compile_list(instructions: Sequence[Instruction], persistent: Collection[Buffer]) -> Schedule:
    """The lanes of a list that repeats. persistent: the buffers that are there before it, and must be after it.

    HazardError names the first instruction that is wrong.
    """
    uses = {buffer: _Use(True) for buffer in persistent}
    counts: Counter[str] = Counter()
    waits: list[tuple[Instruction, Counts]] = []
    of_step_before: list[tuple[Counts, Buffer, bool]] = []

    def wait(after: Counts, buffer: Buffer, use: _Use, for_readers: bool) -> None:
        if use.writer is None:
            of_step_before.append((after, buffer, for_readers))
        _add(after, use.writer or {})
        _add(after, use.readers if for_readers else {})

    for i in instructions:
        lane, after = i.lane, {}
        counts[lane] += 1
        for buffer in i.reads:
            use = uses.get(buffer)
            if use is None or not use.held:
                raise HazardError(f"{i} reads {buffer}, which {'nothing writes' if use is None else 'is freed'} before")
            if lane not in use.readers:  # else the lane has waited before
                wait(after, buffer, use, for_readers=False)
            use.readers[lane] = counts[lane]
        for buffer in (*i.frees, *i.writes):
            use = uses.get(buffer) or _Use(False)
            if buffer not in i.reads and (use.held or buffer in i.frees):
                raise HazardError(f"{i} frees or overwrites {buffer}, which it does not read, and others may")
            wait(after, buffer, use, for_readers=True)
            uses[buffer] = _Use(buffer in i.writes, {lane: counts[lane]})
        waits.append((i, after))
    _check_end({buffer for buffer, use in uses.items() if use.held}, set(persistent))
    for after, buffer, for_readers in of_step_before:  # which left each buffer as this one does
        use = uses[buffer]
        for touched in (use.writer or {}, use.readers if for_readers else {}):
            _add(after, {lane: count - counts[lane] for lane, count in touched.items()})
    # Within a lane the order is that of the list: nothing to wait for.
    entries = [Entry(i, tuple((lane, n) for lane, n in after.items() if lane != i.lane)) for i, after in waits]
    return {lane: tuple(entry for entry in entries if entry.instruction.lane == lane) for lane in counts}


def _add(after: Counts, touched: Counts) -> None:
    """Wait for these, too."""
    for lane, count in touched.items():
        if after.get(lane, count) <= count:
            after[lane] = count


def _check_end(left: set[Buffer], persistent: set[Buffer]) -> None:
    for buffers, what in ((left - persistent, "never freed"), (persistent - left, "lost")):
        if buffers:
            raise HazardError(f"at the end of a step, {what}: {', '.join(map(str, sorted(buffers, key=str)))}")


class Lane:
    """How far a rank has come on one of its lanes, in instructions of all steps together.

    begun, done: how many. limit: how many may be begun.
    """

    __slots__ = ("name", "entries", "length", "begun", "done", "limit")

    def __init__(self, name: str, length: int, limit: int):
        self.name, self.length, self.limit = name, length, limit
        self.entries: list[tuple[Instruction, list[tuple[Lane, int]]]] = []
        self.begun = self.done = 0

    def ready(self) -> Instruction | None:
        """The next instruction, if it may start now."""
        begun = self.begun
        if begun > self.done or begun >= self.limit:
            return None
        step, place = divmod(begun, self.length)
        instruction, after = self.entries[place]
        for other, number in after:
            if other.done < step * other.length + number:
                return None
        return instruction

    def begin(self) -> None:
        self.begun += 1

    def finish(self) -> None:
        """What was begun is done."""
        self.done += 1

    @property
    def step(self) -> int:
        """The step of what was begun last, from 0."""
        return (self.begun - 1) // self.length


class Lanes(dict[str, Lane]):
    """The lanes of one rank, by name. steps: how many times the list may be run, one after the other."""

    def __init__(self, schedule: Schedule, steps: int = 1):
        super().__init__({name: Lane(name, len(own), steps * len(own)) for name, own in schedule.items()})
        for name, lane in self.items():
            lane.entries = [(i, [(self[other], number) for other, number in after]) for i, after in schedule[name]]

    def allow_step(self) -> None:
        """The list may be run once more."""
        for lane in self.values():
            lane.limit += lane.length

    def unfinished(self) -> list[Instruction]:
        """On each lane, the first instruction that is not done though it may be begun."""
        return [lane.entries[lane.done % lane.length][0] for lane in self.values() if lane.done < lane.limit]
