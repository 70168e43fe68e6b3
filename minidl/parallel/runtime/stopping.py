"""How a run is stopped early, by all ranks before the same step: Ctrl-C ends no step in its midst."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from minidl.arena import Arena
from minidl.parallel.runtime.process import Process, Status

STOP = 16  # offset in row 0, whose first line the launcher writes: 0; WAIT; or the step before which all ranks stop
WAIT = -1  # who comes to his next step waits there until it is known
SETTLE_SECONDS = 1e-3  # in which what one processor has written is seen by all, many times over


def begins(process: Process, step: int) -> bool:
    """Whether this rank is to begin `step`. If not, no rank begins it, and all have begun those before it, or will.

    A rank says first what it begins, and looks then whether it may: so the launcher, which first says that nobody may
    and looks then, either sees that it has begun or has it wait. Nobody depends on how far the others are.
    """
    process.status.tell_step(step)
    words, stop = process.arena.words, process.arena.word(0, STOP)
    while words[stop] == WAIT:
        process.pause()
    return not 0 < words[stop] <= step


def ask_to_stop(arena: Arena) -> bool:
    """Have all ranks stop before the first step that none of them has begun; false if that would be the first."""
    stop = arena.word(0, STOP)
    arena.words[stop] = WAIT
    time.sleep(SETTLE_SECONDS)
    begun = max(Status(arena, row).steps_begun for row in range(arena.rows))
    arena.words[stop] = begun
    return begun > 0


class Stopping:
    """In the `with` block the first Ctrl-C asks the workers to stop; the second raises KeyboardInterrupt as always.

    So does the first one before a step has begun. asked: whether it came. Where Ctrl-C is not Python's own affair, in
    another thread than the main one or under another handler, only a function that is `heeded` can ask.
    """

    def __init__(self, arena: Arena):
        self.arena, self.asked, self._installed = arena, False, False

    def __enter__(self) -> Stopping:
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: self._ask())
            self._installed = True
        return self

    def heeded(self, function: Callable) -> Callable:
        """`function`, but that a KeyboardInterrupt which it raises is taken for the first Ctrl-C."""

        def call(*arguments) -> None:
            try:
                function(*arguments)
            except KeyboardInterrupt:
                if self.asked:
                    raise
                self._ask()

        return call

    def _ask(self) -> None:
        self._uninstall()
        self.asked = ask_to_stop(self.arena)
        if not self.asked:
            raise KeyboardInterrupt

    def __exit__(self, *error) -> None:
        self._uninstall()

    def _uninstall(self) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
