"""Starting worker processes, watching them, and ending them: whatever happens, none is left."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

import cloudpickle

from minidl import processes
from minidl.arena import Arena
from minidl.checks import check_count, check_positive
from minidl.parallel.runtime.logs import LogRelay
from minidl.parallel.runtime.logs import levels as log_levels
from minidl.parallel.runtime.process import ABORT, Status
from minidl.processes import ChildProcess, WorkerError

START_SECONDS = 60.0  # that workers may take to start, however short the timeout


def launch(
    work: Callable,
    workers: int,
    args: Sequence = (),
    kwargs: dict | None = None,
    *,
    timeout: float | None = None,
    threads: int = 1,
    pin: bool = True,
    on_report: Callable[[int, object], None] | None = None,
) -> list:
    """Run `work(group, *args, **kwargs)` in `workers` processes and return what each returned, in rank order.

    `work` may be a lambda or defined in a notebook cell or a REPL: it is sent by value. group is the ProcessGroup of
    all workers; `group.report(message)` calls `on_report(rank, message)` here. threads: BLAS threads of each worker.
    pin: keep rank r on core r modulo the cores. timeout: seconds in which no worker begins a collective or an
    instruction, after which the run counts as hanging; starting up does not count.

    Raises WorkerError with the failing rank's own traceback; by then all workers have ended.
    """
    if not callable(work):
        raise TypeError(f"launch needs a function to run in the workers, not a {type(work).__name__}")
    check_count("workers", workers)
    check_count("threads", threads)
    if timeout is not None:
        check_positive("timeout", timeout)
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise TypeError(f"args={args!r} is not a sequence of arguments")
    payload = cloudpickle.dumps((work, tuple(args), kwargs or {}))
    arena = Arena(workers)
    crew = _Crew(arena, on_report)
    try:
        with LogRelay() as logs:
            crew.start(payload, threads, pin)
            return crew.watch(logs, timeout)
    finally:
        crew.end()
        os.close(arena.fd)


class _Crew:
    """The processes of one run and the connections to them."""

    def __init__(self, arena: Arena, on_report):
        self.arena, self.on_report = arena, on_report
        self.processes: list[ChildProcess] = []

    def start(self, payload: bytes, threads: int, pin: bool) -> None:
        cores = sorted(os.sched_getaffinity(0)) if pin and hasattr(os, "sched_getaffinity") else None
        for _ in range(self.arena.rows):
            self.processes.append(ChildProcess("minidl.parallel.runtime.child", (self.arena.fd,), threads))
        for rank, process in enumerate(self.processes):
            setup = {
                "rank": rank,
                "workers": self.arena.rows,
                "row_bytes": self.arena.row_bytes,
                "core": cores[rank % len(cores)] if cores else None,
                "crowded": self.arena.rows > (len(cores) if cores else os.cpu_count() or 1),
                "log_levels": log_levels(),
            }
            process.send(pickle.dumps(setup), payload)

    def watch(self, logs: LogRelay, timeout: float | None) -> list:
        """The workers' results. Raises WorkerError at the first failure."""
        results: dict[int, object] = {}
        waiting = {process.connection: rank for rank, process in enumerate(self.processes)}
        counts, moved = None, time.monotonic()
        while waiting:
            for connection in wait(list(waiting), timeout=None if timeout is None else min(timeout / 4, 1.0)):
                rank = waiting[connection]
                try:
                    kind, content = pickle.loads(connection.recv_bytes())
                except (EOFError, ConnectionResetError):
                    raise WorkerError(self._obituary(rank), rank) from None
                if kind == "log":
                    logs.handle(content)
                elif kind == "report":
                    if self.on_report is not None:
                        self.on_report(rank, content)
                elif kind == "error":
                    text, error = content
                    raise WorkerError(f"rank {rank} of {self.arena.rows} raised:\n\n{text}", rank) from error
                else:  # "aborted" comes only after a failure that has been raised
                    results[rank] = content
                    del waiting[connection]
            if timeout is not None:
                now = [Status(self.arena, rank).read()[0] for rank in range(self.arena.rows)]
                if now != counts:
                    counts, moved = now, time.monotonic()
                elif time.monotonic() - moved > (timeout if all(now) else max(timeout, START_SECONDS)):
                    raise WorkerError(f"no worker moved for {timeout:g} s; last seen: {self._last_seen()}")
        return [results[rank] for rank in range(self.arena.rows)]

    def _obituary(self, rank: int) -> str:
        how = self.processes[rank].how_it_ended()
        _, doing = Status(self.arena, rank).read()
        return f"rank {rank} of {self.arena.rows} {how}" + (f"; it was last seen in {doing}" if doing else "")

    def _last_seen(self) -> str:
        seen = (Status(self.arena, rank).read()[1] for rank in range(self.arena.rows))
        places = (f"in {doing}" if doing else "before its first instruction" for doing in seen)
        return ", ".join(f"rank {rank} {place}" for rank, place in enumerate(places))

    def end(self) -> None:
        """Tell workers still running to stop, give them a moment, kill those that do not."""
        self.arena.words[ABORT] = 1
        processes.end(self.processes)
