"""How a run is stopped early, by all ranks before the same step: Ctrl-C ends no step in its midst."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from minidl.arena import Arena
from minidl.parallel.runtime.process import STOP, Process, Status

WAIT = -1  # in place of the step to stop before, while it is being chosen: no rank begins another step meanwhile
SETTLE_SECONDS = 1e-3  # far more than passes until all processors see what one has written


def begins(process: Process, step: int) -> bool:
    """Whether this rank is to begin `step`. If not, no rank begins it, and all have begun those before it, or will.

    A rank first tells which step it begins, then looks whether to wait. The launcher first tells all to wait, then
    looks which steps have begun. So at least one of the two sees the other, however far apart the ranks are.
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


class EndAtOnce(KeyboardInterrupt):
    """Ctrl-C for the second time: the run is to end at once."""


class Stopping:
    """In the `with` block the first Ctrl-C asks the workers to stop; at the second EndAtOnce is raised.

    ask: has them stop, or returns false where no step has begun; then the first is a KeyboardInterrupt as ever. reason:
    the exception that asked, None before; an error that ends the run before they have stopped gets it as its context.
    Where Ctrl-C is not Python's own affair, in another thread than the main one or under another handler, only a
    function that is `heeded` can ask.
    """

    def __init__(self, ask: Callable[[], bool]):
        self._have_them_stop, self._installed = ask, False
        self.reason: BaseException | None = None

    def __enter__(self) -> Stopping:
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._pressed)
            self._installed = True
        return self

    def heeded(self, function: Callable) -> Callable:
        """`function`, but that the first exception it raises asks the workers to stop, and further ones do nothing."""

        def call(*arguments) -> None:
            try:
                function(*arguments)
            except EndAtOnce:
                raise
            except BaseException as error:
                if not self._ask(error):
                    raise

        return call

    def _pressed(self, number: int, frame) -> None:
        if self.reason is not None:
            raise EndAtOnce
        if not self._ask(KeyboardInterrupt()):
            raise KeyboardInterrupt

    def _ask(self, reason: BaseException) -> bool:
        """Ask the workers to stop unless they have been asked; false if that cannot be, as no step has begun."""
        if self.reason is not None:
            return True
        self.reason = reason
        return self._have_them_stop()

    def __exit__(self, kind, error, trace) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(error, Exception) and error is not self.reason and error.__context__ is None:
            error.__context__ = self.reason
