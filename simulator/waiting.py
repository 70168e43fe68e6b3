"""What ranks of a simulation wait for: a busy stream; a collective to which not all have come, or that goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.clock import Action


class Stream:
    """Does one thing at a time; who comes while it is busy waits in a queue."""

    def __init__(self):
        self.busy = False
        self.waiting: deque[Action] = deque()

    def acquire(self, action: Action) -> None:
        if self.busy:
            self.waiting.append(action)
        else:
            self.busy = True
            action()

    def release(self) -> None:
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.busy = False


class PendingCollective:
    """A collective inside a layer that a rank has begun: its work for it, its end, and who waits for that.

    at_wait: the rank works for it only while it waits, as it has one thread. record: is told since when it has run.
    """

    def __init__(self, at_wait: bool, record: Callable[[float], None]):
        self.at_wait, self.record = at_wait, record
        self.to_do: Action | None = None  # the work, when all have come
        self.waiter: Action | None = None
        self.since, self.has_ended = 0.0, False

    def work(self, action: Action) -> None:
        """All have come."""
        if self.at_wait and self.waiter is None:
            self.to_do = action
        else:
            action()

    def wait(self, now: float, go_on: Action) -> None:
        """Go on when it has ended."""
        if self.has_ended:
            go_on()
            return
        self.waiter = go_on
        if self.at_wait:
            self.since = now
        if self.to_do:
            self.to_do()

    def end(self, start: float) -> None:
        """All have done their work; start: when all had come."""
        self.has_ended = True
        self.record(max(start, self.since))
        if self.waiter:
            self.waiter()


@dataclass
class Meeting:
    """A collective whose members have all come: each does its share of the work; the last to finish ends it."""

    start: float
    unfinished: int
    ends: list[Callable[[float], None]] = field(default_factory=list)  # told when all had come
