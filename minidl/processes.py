"""Processes of our own, watched from here: what they send, when and how they end. None outlives us."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from minidl import forkserver
from minidl.messages import Message, Messages
from minidl.streams import fill_standard_streams
from minidl.ulimits import explained

GRACE_SECONDS = 2.0  # for a process that has done its work to end by itself, before it is killed
LOOK_SECONDS = 0.02  # between two looks whether a process has ended, where the system has no descriptor that tells


class WorkerError(RuntimeError):
    """A worker raised, was killed, or hung. `rank` is the one that failed, None for a hang of the whole run."""

    def __init__(self, message: str, rank: int | None = None):
        super().__init__(message)
        self.rank = rank


class ChildProcess:
    """A new Python that runs `main(messages, *fds, *arguments)` of a module, and our end of its `messages`.

    name: in errors, "rank 0 of 4" say. fds: open files that it shall have too. threads: of its BLAS. own_group: see
    `spawn.start`. Raises OSError, which says what limit is in the way, where no more processes can be had.
    """

    def __init__(
        self, module: str, name: str, rank: int, fds: Sequence[int] = (), arguments: Sequence = (), threads: int = 1,
        own_group: bool = False,
    ):  # fmt: skip
        self.name, self.rank, self._own_group = name, rank, own_group
        self._code: int | None = None
        self._ending: str | None = None
        self._watch: int | None = None  # a descriptor that is readable once the process has ended
        self._oom_kills = _oom_kills()
        try:
            fill_standard_streams()
            self.messages, theirs = Messages.pair()
            try:
                self._process = forkserver.start(module, (theirs.fileno(), *fds), arguments, threads, own_group)
            except BaseException:
                self.messages.close()
                raise
            finally:
                theirs.close()
        except OSError as error:
            raise explained(error, f"cannot start a process for {name}") from error
        with contextlib.suppress(OSError, AttributeError):  # neither macOS nor an old Linux has it
            self._watch = os.pidfd_open(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, kind: str, content: bytes) -> None:
        """Send a message; if the process has died, `news` says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.messages.send(kind, content)

    def has_ended(self) -> bool:
        if self._ending is None:
            try:
                self._code = forkserver.exit_code(self._process)
            except ChildProcessError:
                self._ending = "ended, it is not known how: this process does not learn how its children end (SIGCHLD)"
            else:
                self._ending = None if self._code is None else ending(self._code)
        return self._ending is not None

    def how_it_ended(self) -> str:
        """What became of a process that has ended."""
        text, missing = self._ending or "has not ended", self.messages.missing()
        if missing:
            text += f" when {missing} had come"
        if self._code == -signal.SIGKILL and _oom_kills() != self._oom_kills:
            text += " (meanwhile the system ran out of memory and killed a process: most likely this one)"
        return text

    def sources(self) -> list[Messages | int]:
        """What becomes readable when there is news of the process."""
        return ([] if self.messages.ended else [self.messages]) + ([] if self._watch is None else [self._watch])

    def kill(self) -> None:
        """Kill it; where it leads a group of its own, all that is left of that."""
        with contextlib.suppress(ProcessLookupError):
            if self._own_group:
                os.killpg(self.pid, signal.SIGKILL)
            elif not self.has_ended():
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait until it has ended and forget it."""
        while not self.has_ended():
            wait([self._watch] if self._watch is not None else [], LOOK_SECONDS)
        self.messages.close()
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None


def news(
    processes: Sequence[ChildProcess], timeout: float | None = None
) -> Iterator[tuple[ChildProcess, Message | None]]:
    """Wait until there is news of one of the processes, `timeout` seconds at most, and give what there is.

    (process, message) for what has come; (process, None) if the process has ended and nothing more comes from it. A
    child of its own, which has its files too, may go on living.
    """
    if any(process._watch is None for process in processes):
        timeout = min(LOOK_SECONDS, math.inf if timeout is None else timeout)
    ready = set(wait([source for process in processes for source in process.sources()], timeout))
    for process in processes:
        if (process._watch is None or process._watch in ready) and process.has_ended():
            while message := process.messages.take():  # asked after it has ended: nothing comes later
                yield process, message
            yield process, None
        elif process.messages in ready and (message := process.messages.take()):
            yield process, message


def end(processes: Sequence[ChildProcess], grace_seconds: float) -> None:
    """Give the processes a moment to end, and kill those that do not."""
    try:
        deadline = time.monotonic() + grace_seconds
        while running := [process for process in processes if not process.has_ended()]:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            watched = all(process._watch is not None for process in running)
            wait([process._watch for process in running if watched], left if watched else min(left, LOOK_SECONDS))
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.close()


def ending(code: int) -> str:
    """How a process ended, by its exit code: that of a signal is negative."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}"


def signal_name(number: int) -> str:
    """SIGKILL, SIGRTMIN+6; for what has no name its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        first, last = getattr(signal, "SIGRTMIN", math.inf), getattr(signal, "SIGRTMAX", 0)
        return f"SIGRTMIN+{number - first}" if first <= number <= last else f"signal {number}"


def _oom_kills() -> int | None:
    """How many processes Linux has killed for want of memory; None where it cannot be read."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
