"""What all process groups of one worker share: its heap, what it is doing, and how it waits."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np

from minidl.arena import LINE, Arena, Heap
from minidl.parallel.group import ProcessGroup
from minidl.parallel.runtime.announcements import Calls
from minidl.parallel.runtime.patience import Patience

CONTROL_BYTES = 64 << 20  # of each row, at most: the lines of its groups; untouched pages cost nothing
LEAST_ROW_BYTES = 4 << 20  # with which a worker has room for a few groups and something to share

# What lies where in a row, as offsets in bytes. Only the launcher writes the first line.
NEWS = 0  # of row 0: what all ranks must heed
SOME_RETURNED, ABORT = 1, 2
RETURNED = 8  # of every row: 1 when its worker has returned
STOP = 16  # of row 0: the step before which all ranks stop, 0 for none, or stopping.WAIT
STATUS = LINE  # what the rank is doing: a count, the steps begun, then text
STATUS_BYTES = 4 * LINE
CALLS = STATUS + STATUS_BYTES  # the descriptions of its calls
GROUPS = CALLS + Calls.BYTES  # the lines of the first group


def tell_returned(arena: Arena, row: int) -> None:
    """Let all ranks know that the worker of `row` has returned, and what it had to send is in its row."""
    arena.words[arena.word(row, RETURNED)] = 1
    arena.words[arena.word(0, NEWS)] = SOME_RETURNED


def has_returned(arena: Arena, row: int) -> bool:
    return bool(arena.words[arena.word(row, RETURNED)])


def tell_abort(arena: Arena) -> None:
    """Have every rank that waits for another, or will, raise Aborted."""
    arena.words[arena.word(0, NEWS)] = ABORT


class Aborted(RuntimeError):
    """Another rank failed, and this one must end too."""


class Status:
    """What a rank is doing, for the launcher to read if the run stops: a count that grows, its step, and a text."""

    def __init__(self, arena: Arena, row: int):
        self._words, self._count = arena.words, arena.word(row, STATUS)
        self._text = arena.view(row, STATUS + 16, (STATUS_BYTES - 16,), np.uint8).data
        self._instruction = self._call = ""

    @property
    def count(self) -> int:
        return self._words[self._count]

    def tell_start(self) -> None:
        """The worker's function begins."""
        self._words[self._count] += 1

    @property
    def steps_begun(self) -> int:
        """The number of the step that began last, from 1; 0 before the first."""
        return self._words[self._count + 1]

    def tell_step(self, step: int) -> None:
        """Step `step`, from 0, begins."""
        self._words[self._count + 1] = step + 1

    def tell(self, instruction: str) -> None:
        """An instruction of a program begins."""
        self._words[self._count] += 1
        if instruction != self._instruction or self._call:
            self._instruction, self._call = instruction, ""
            self._write(instruction)

    def tell_call(self, name: str) -> None:
        """A collective begins, inside the instruction told last if there was one."""
        self._words[self._count] += 1
        if name != self._call:
            self._call = name
            self._write(f"{self._instruction} ({name})" if self._instruction else name)

    def _write(self, text: str) -> None:
        encoded = text.encode()[: STATUS_BYTES - 17] + b"\0"
        self._text[: len(encoded)] = encoded

    def read(self) -> tuple[int, str]:
        return self.count, bytes(self._text).split(b"\0")[0].decode(errors="replace")


class Process:
    """What all groups of one process share: its heap, its status, and where the lines of a new group may begin.

    crowded: as Patience has it. report: hands a message to the launcher.
    """

    def __init__(self, arena: Arena, row: int, crowded: bool, report: Callable[[object], None]):
        self.arena, self.row, self.report = arena, row, report
        self.patience = Patience(crowded)
        self.control_bytes = min(CONTROL_BYTES, arena.row_bytes // 4 // LINE * LINE)
        self.heap, self.status = Heap(arena, row, self.control_bytes), Status(arena, row)
        self.calls = Calls(arena, row, CALLS)
        self._news, self.some_returned = arena.word(0, NEWS), False
        self.groups: list[ProcessGroup] = []
        self.free_block = GROUPS
        self._offsets: dict[int, tuple[weakref.ref, int | None]] = {}
        self.meanwhile: Callable[[], object] = lambda: None  # what else can be done while this rank waits

    def offset_of(self, x: np.ndarray) -> int | None:
        """Where in this rank's row `x` lies, None if elsewhere. Remembered: to ask NumPy takes a microsecond."""
        known = self._offsets.get(id(x))
        if known is None or known[0]() is not x:
            if len(self._offsets) > 4096:
                self._offsets.clear()
            known = self._offsets[id(x)] = (weakref.ref(x), self.arena.offset_in(self.row, x))
        return known[1]

    def pause(self) -> None:
        """Give way to other processes for a moment, then bring on what is pending in any group. Raises Aborted."""
        self.patience.give_way(self.status.count)
        news = self.arena.words[self._news]
        if news == ABORT:
            raise Aborted("another rank failed")
        self.some_returned = news == SOME_RETURNED
        for group in self.groups:
            if group.in_flight:
                group.progress()
        self.meanwhile()
