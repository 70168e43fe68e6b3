"""Noticing that no worker moves any more."""

from __future__ import annotations

import time

from minidl.arena import Arena
from minidl.parallel.runtime.process import Status, has_returned
from minidl.processes import WorkerError

START_SECONDS = 60.0  # that workers may take to start, however short the timeout


class HangAlarm:
    """Raises WorkerError when no worker has begun a collective or an instruction for `timeout` seconds; never if None.

    look_seconds: how often `look` must be called at least.
    """

    def __init__(self, arena: Arena, timeout: float | None):
        self.arena, self.timeout = arena, timeout
        self.look_seconds = None if timeout is None else min(timeout / 4, 1.0)
        self._counts: list[int] = []
        self._still, self._looked = 0.0, time.monotonic()

    def look(self) -> None:
        if self.timeout is None:
            return
        now = time.monotonic()
        # Time in which this process did not look, as it was stopped (Ctrl-Z) or busy, says nothing of the workers.
        passed, self._looked = min(now - self._looked, 2 * self.look_seconds), now
        counts = [Status(self.arena, rank).read()[0] for rank in range(self.arena.rows)]
        if counts != self._counts:
            self._counts, self._still = counts, 0.0
            return
        self._still += passed
        if self._still > (self.timeout if all(counts) else max(self.timeout, START_SECONDS)):
            seen = ", ".join(f"rank {rank} {self._place(rank)}" for rank in range(self.arena.rows))
            raise WorkerError(f"no worker moved for {self.timeout:g} s; last seen: {seen}")

    def _place(self, rank: int) -> str:
        count, doing = Status(self.arena, rank).read()
        if has_returned(self.arena, rank):
            return "has returned"
        if doing:
            return f"in {doing}"
        return "before its first collective" if count else "not started yet"
