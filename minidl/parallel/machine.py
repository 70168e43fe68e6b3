"""The machine: the one rule by which a rank's list of instructions runs.

The list is a legal program as it stands, one instruction after the other. Lanes let one start earlier: each lane runs
its own first-in first-out, and an instruction waits only for those on other lanes that wrote what it reads, or that
wrote or read what it overwrites or frees. The list repeats, so some of these are of the step before.

`compile_list` finds out once for whom each instruction waits; `Lanes` say what may run now. The checker drives them
with tags, the worker with kernels, the simulator with clocks. Nothing here knows of those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from minidl.parallel.instructions.buffers import BufferName
from minidl.parallel.instructions.instruction import Instruction


class HazardError(ValueError):
    """A list that reads what is not there, overwrites what is, or leaves behind other buffers than it found."""


class Entry(NamedTuple):
    """An instruction, and how many of each other lane must be done before it starts, counted from its own step on.

    So 0 is all of the step before, and -1 all but the last of them.
    """

    instruction: Instruction
    after: tuple[tuple[str, int], ...]


Compiled = dict[str, tuple[Entry, ...]]  # a list: lane -> its instructions, in order
Counts = dict[str, int]  # lane -> a place there: how many of its instructions are done with that one


class _Use:
    """Whether a buffer is held; who wrote or freed it last, None if nobody has in this step; who has read it since.

    reader, freer: the last instructions that read and freed it.
    """

    __slots__ = ("held", "lane", "count", "readers", "reader", "freer")

    def __init__(self, held: bool):
        self.held, self.lane, self.count = held, None, 0
        self.readers: Counts = {}
        self.reader = self.freer = None


def compile_list(instructions: Sequence[Instruction], persistent: Collection[BufferName]) -> Compiled:
    """The lanes of a list that repeats. persistent: the buffers that are there before it, and must be after it.

    HazardError names the first instruction that is wrong.
    """
    uses = {buffer: _Use(True) for buffer in persistent}
    lanes: dict[str, list[tuple[Instruction, Counts]]] = {}
    of_step_before: list[tuple[str, Counts, _Use, bool]] = []  # whether for its readers, too
    for i in instructions:
        lane, after = i.lane, {}
        lanes.setdefault(lane, []).append((i, after))
        count = len(lanes[lane])
        for buffer in i.reads:
            use = uses.get(buffer)
            if use is None or not use.held:
                raise HazardError(f"{i} reads {buffer}, which {'nothing writes' if use is None else 'is freed'} before")
            use.reader, readers = i, use.readers
            if lane not in readers:  # else the lane has waited before
                if use.lane is None:
                    of_step_before.append((lane, after, use, False))
                elif use.lane != lane and after.get(use.lane, 0) < use.count:
                    after[use.lane] = use.count
            readers[lane] = count
        for buffers, held in ((i.frees, False), (i.writes, True)):
            for buffer in buffers:
                use = uses.get(buffer) or uses.setdefault(buffer, _Use(False))
                if held and use.freer is i:
                    raise HazardError(f"{i} frees {buffer}, which it writes")
                if use.reader is not i and (use.held or not held):
                    raise HazardError(f"{i} frees or overwrites {buffer}, which it does not read, and others may")
                if use.lane is None:
                    of_step_before.append((lane, after, use, True))
                elif use.lane != lane and after.get(use.lane, 0) < use.count:
                    after[use.lane] = use.count
                for other, number in use.readers.items():
                    if other != lane and after.get(other, 0) < number:
                        after[other] = number
                use.held, use.lane, use.count = held, lane, count
                use.readers.clear()
                if not held:
                    use.freer = i
    left = {buffer for buffer, use in uses.items() if use.held}
    for buffers, what in ((left.difference(persistent), "never freed"), (set(persistent) - left, "lost")):
        if buffers:
            raise HazardError(f"at the end of a step, {what}: {', '.join(map(str, sorted(buffers, key=str)))}")
    # The step before left each buffer as this one does: now that is known.
    for lane, after, use, for_readers in of_step_before:
        for other, number in ((use.lane, use.count), *(use.readers.items() if for_readers else ())):
            if other is not None and other != lane:
                number -= len(lanes[other])
                after[other] = max(after.get(other, number), number)
    # Within a lane the order is that of the list: nothing to wait for.
    return {lane: tuple([Entry(i, tuple(after.items())) for i, after in found]) for lane, found in lanes.items()}


class Lane:
    """How far a rank has come on one of its lanes, in instructions of all steps together.

    begun, done: how many. limit: how many may be begun.
    """

    __slots__ = ("name", "entries", "length", "others", "begun", "done", "limit")

    def __init__(self, name: str, entries: tuple[Entry, ...], others: dict[str, Lane], steps: int):
        self.name, self.entries, self.length, self.others = name, entries, len(entries), others
        self.begun, self.done, self.limit = 0, 0, steps * len(entries)

    def ready(self) -> Instruction | None:
        """The next instruction, if it may start now."""
        begun = self.begun
        if begun > self.done or begun >= self.limit:
            return None
        step, place = divmod(begun, self.length)
        instruction, after = self.entries[place]
        for name, number in after:
            other = self.others[name]
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

    def __init__(self, compiled: Compiled, steps: int = 1):
        super().__init__()
        self.update((name, Lane(name, entries, self, steps)) for name, entries in compiled.items())

    def allow_step(self) -> None:
        """The list may be run once more."""
        for lane in self.values():
            lane.limit += lane.length

    def unfinished(self) -> list[Instruction]:
        """On each lane, the first instruction that is not done though it may be begun."""
        return [lane.entries[lane.done % lane.length].instruction for lane in self.values() if lane.done < lane.limit]
