"""Starting worker processes, watching them, and ending them: whatever happens, none is left."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec

import cloudpickle

from minidl import packing, processes
from minidl.arena import Arena
from minidl.parallel.runtime.hang_alarm import HangAlarm
from minidl.parallel.runtime.logs import LogRelay
from minidl.parallel.runtime.logs import levels as log_levels
from minidl.parallel.runtime.process import LEAST_ROW_BYTES, Status, tell_abort, tell_returned
from minidl.parallel.runtime.stopping import Stopping, ask_to_stop
from minidl.processes import ChildProcess, WorkerError
from minidl.ranks import rank_and_size
from minidl.validation import check_count, check_positive

ABORT_SECONDS = 0.1  # for a worker that waits for one that failed to raise Aborted, before it is killed
DRAIN_SECONDS = 0.1  # for what the others have sent when one fails


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
    stoppable: bool = False,
) -> list:
    """Run `work(group, *args, **kwargs)` in `workers` processes and return what each returned, in rank order.

    `work` may be a lambda or defined in a notebook cell or a REPL: it is sent by value. group is the ProcessGroup of
    all workers; `group.report(message)` calls `on_report(rank, message)` here. threads: BLAS threads of each worker.
    pin: keep rank r on core r modulo the cores. timeout: seconds in which no worker begins a collective or an
    instruction, after which the run counts as hanging; starting up does not count.

    stoppable: `work` asks `group.begins(step)` before each of its steps. Ctrl-C, or whatever on_report raises, has all
    ranks stop before the same one; KeyboardInterrupt, or that, is raised when they have returned, what they returned
    being its `results`. Ctrl-C pressed twice ends the run at once, as once does otherwise.

    Raises WorkerError with the failing rank's own traceback, or how its process ended; by then all workers have ended.
    A rank that returns while another waits for it, or ever will, is a failure of the one that waits.
    OSError, which names the limit that is in the way, if there is no memory or process to be had.

    Where mpiexec or srun runs this program on several ranks, these are the workers: each calls `launch`, and gets what
    all returned; on_report is called on the first. ValueError, on the first, if they are not as many as `workers`; the
    others end. A rank that raises ends all of them, with its traceback. timeout and pin are the launcher's there.
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
    if rank_and_size()[1] > 1:
        return _launch_on_started_ranks(payload, workers, threads, on_report, stoppable)
    arena = Arena(workers, least=LEAST_ROW_BYTES)
    stopping = Stopping(lambda: ask_to_stop(arena)) if stoppable else None
    crew = _Crew(arena, stopping.heeded(on_report) if stopping and on_report else on_report)
    try:
        with LogRelay() as logs, stopping or nullcontext():
            crew.start(payload, threads, pin)
            results = crew.watch(logs, timeout)
    finally:
        crew.end()
        os.close(arena.fd)
    if stopping and stopping.reason is not None:
        stopping.reason.results = results
        raise stopping.reason
    return results


def _launch_on_started_ranks(payload: bytes, workers: int, threads: int, on_report, stoppable: bool) -> list:
    rank, size = rank_and_size()
    error = None
    if size != workers:
        error = ValueError(f"{size} ranks were started, and {workers} are needed: start the program with -n {workers}")
    elif find_spec("mpi4py") is None:
        error = ModuleNotFoundError(f"to run on {size} ranks minidl needs mpi4py: pip install 'minidl[mpi]'")
    if error:
        if rank:
            sys.exit()  # the first says it for all
        raise error
    from minidl.parallel.runtime import mpi_launch  # mpi4py starts MPI as it is imported

    return mpi_launch.launch(payload, threads, on_report, stoppable)


class _Crew:
    """The processes of one run and what they have sent."""

    def __init__(self, arena: Arena, on_report):
        self.arena, self.on_report = arena, on_report
        self.processes: list[ChildProcess] = []
        self.results: dict[int, object] = {}

    def start(self, payload: bytes, threads: int, pin: bool) -> None:
        cores = sorted(os.sched_getaffinity(0)) if pin and hasattr(os, "sched_getaffinity") else None
        workers, module = self.arena.rows, "minidl.parallel.runtime.child"
        for rank in range(workers):
            name = f"rank {rank} of {workers}"
            self.processes.append(ChildProcess(module, name, rank, (self.arena.fd,), threads=threads))
        for rank, process in enumerate(self.processes):
            setup = {
                "rank": rank,
                "workers": workers,
                "row_bytes": self.arena.row_bytes,
                "core": cores[rank % len(cores)] if cores else None,
                "crowded": workers > (len(cores) if cores else os.cpu_count() or 1),
                "log_levels": log_levels(),
            }
            process.send("setup", pickle.dumps(setup))
            process.send("work", payload)

    def watch(self, logs: LogRelay, timeout: float | None) -> list:
        """The workers' results. Raises WorkerError at the first failure."""
        hang = HangAlarm(self.arena, timeout)
        try:
            while len(self.results) < len(self.processes):
                at_work = [process for process in self.processes if process.rank not in self.results]
                for process, message in processes.news(at_work, hang.look_seconds):
                    if message is None:
                        if process.rank not in self.results:
                            raise self._obituary(process)
                    else:
                        self._take(process, *message, logs)
                hang.look()
        except WorkerError:
            self._take_the_rest(logs)
            raise
        return [self.results[process.rank] for process in self.processes]

    def _take(self, process: ChildProcess, kind: str, content: bytes, logs: LogRelay) -> None:
        if kind == "log":
            logs.handle(process, content)
        elif kind == "report":
            if self.on_report is not None:
                self.on_report(process.rank, packing.unpacked(process, "report", content))
        elif kind == "error":
            raise packing.unpacked_error(process, content)
        else:
            self.results[process.rank] = packing.unpacked(process, "result", content)
            tell_returned(self.arena, process.rank)

    def _take_the_rest(self, logs: LogRelay) -> None:
        """Stop the workers, and take the records and reports that have come by now and wait to be read."""
        tell_abort(self.arena)
        deadline = time.monotonic() + DRAIN_SECONDS
        for process in self.processes:
            while (message := process.messages.take()) and time.monotonic() < deadline:
                if message[0] in ("log", "report"):
                    self._take(process, *message, logs)

    def _obituary(self, process: ChildProcess) -> WorkerError:
        _, doing = Status(self.arena, process.rank).read()
        seen = f"; it was last seen in {doing}" if doing else ""
        return WorkerError(f"{process.name} {process.how_it_ended()}{seen}", process.rank)

    def end(self) -> None:
        """Tell workers still running to stop, give them a moment, kill those that do not."""
        tell_abort(self.arena)
        whole = len(self.results) == self.arena.rows
        processes.end(self.processes, processes.GRACE_SECONDS if whole else ABORT_SECONDS)
