"""Running a function on the ranks that mpiexec or srun has started: what all groups of a rank share, and how it ends.

Only `launch` imports this module, and only where such ranks run it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import termios
import time
import traceback
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import numpy as np
from mpi4py import MPI

from minidl.kernels.cpu.fast.threads import get_num_threads, set_num_threads
from minidl.packing import packed
from minidl.parallel.runtime import mpi_watch
from minidl.parallel.runtime.mpi import MpiGroup
from minidl.parallel.runtime.patience import Patience
from minidl.parallel.runtime.stopping import Stopping

PARTING_SECONDS = 5.0


def launch(payload: bytes, threads: int, on_report: Callable[[int, object], None] | None, stoppable: bool) -> list:
    """Run the function with its arguments in `payload` on this rank; what every rank returned, in rank order.

    on_report is called on rank 0. A rank that raises prints its traceback and ends all of them. Otherwise as `launch`
    of launch.py: what has the ranks stop is raised on the rank that it came to, and KeyboardInterrupt on the others.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _end_job_after
    _watch()
    process = MpiProcess(on_report)
    group = MpiGroup(process, MPI.COMM_WORLD.Dup())
    stopping = Stopping(process.ask_to_stop) if stoppable else None
    if stopping and on_report:
        process.on_report = stopping.heeded(on_report)
    threads_before = get_num_threads()
    set_num_threads(threads)
    try:
        with stopping or nullcontext():
            work, args, kwargs = pickle.loads(payload)
            returned = _returned(group, work(group, *args, **kwargs), stopping)
    except BaseException as error:
        end_job(error, process.doing)
    finally:
        set_num_threads(threads_before)
    process.close()
    results = [result for result, _ in returned]
    if any(asked for _, asked in returned):
        reason = stopping.reason or KeyboardInterrupt("another rank has asked all to stop")
        reason.results = results
        raise reason
    return results


def _returned(group: MpiGroup, result, stopping: Stopping | None) -> list[tuple[object, bool]]:
    """What every rank returned, and whether it asked all to stop; by then all reports are taken."""
    process = group.process
    group.agreed_to_stop()  # what was under way when the last step began
    reports = int(group.all_reduce(np.array([process.reported]))[0])
    while group.rank == 0 and process.taken < reports:
        process.pause()
    asked = stopping is not None and stopping.reason is not None
    returned = [pickle.loads(content) for content in group.exchange(packed("the result", (result, asked)))]
    while not process.all_sent():
        process.pause()
    return returned


def end_job(error: BaseException, doing: str = "") -> None:
    """Print the traceback with the name of this rank and end all ranks; does not return."""
    where = f" in {doing}" if doing else ""
    _abort(f"raised{where}:\n\n" + "".join(traceback.format_exception(error)), 1)


def end_together(code: int, said: str) -> None:
    """Returns when all ranks have called it: those that are through with what they do, and those that cannot do it.

    A rank whose `code` is not 0 waits a few seconds for the others, which fail as it does if it is for the arguments;
    else they will never come, and it prints what it has `said` with its name and ends all of them.
    """
    patience, since = Patience(crowded=True), time.monotonic()
    request = MPI.COMM_WORLD.Ibarrier()
    while not request.Test():
        patience.give_way(0)
        if code and time.monotonic() - since > PARTING_SECONDS:
            _abort(f"ended:\n\n{said}", code)


def _abort(text: str, code: int) -> None:
    """Print the name of this rank and the text, on standard error itself, which nobody captures; end all ranks."""
    if _watch.cache_info().currsize and (watch := _watch()) is not None:
        os.kill(watch, signal.SIGKILL)  # what is to be said of this rank is said here
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if sys.__stderr__ is not None:
        print(f"{_name()} {text}", file=sys.__stderr__, flush=True)
        _wait_until_read(sys.__stderr__)
    MPI.COMM_WORLD.Abort(code)
    os._exit(code)  # MPICH may return from there


def _wait_until_read(stream) -> None:
    """Wait, not for long, until the other end of a pipe has read all: mpiexec passes nothing on after an abort."""
    unread, since = array("i", [0]), time.monotonic()
    with contextlib.suppress(OSError, ValueError):  # no pipe, or a system that does not tell
        while time.monotonic() - since < PARTING_SECONDS:
            fcntl.ioctl(stream.fileno(), termios.FIONREAD, unread)
            if not unread[0]:
                return
            os.sched_yield()


@cache
def _watch() -> int | None:
    """Have a process watch the ranks of this machine, from the first call on, which all ranks make; its process id.

    None where the system cannot tell that a process which is none of ours has ended.
    """
    machine, watch = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED), None
    pipe, _ = os.pipe()  # both ends stay open as long as this process lives
    ranks = machine.allgather((_name(), str(os.getpid()), str(pipe)))
    if machine.rank == 0 and os.path.isdir("/proc/self/fd"):
        arguments = [os.uname().nodename, *(text for rank in ranks for text in rank)]
        command = [sys.executable, "-I", "-S", mpi_watch.__file__, *arguments]
        # In a session of its own, or mpiexec would end it together with the rank that started it
        watch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        atexit.register(watch.communicate, b".")  # before MPI lets any rank end
    pid = machine.bcast(watch and watch.pid)
    machine.Free()
    return pid


def _name() -> str:
    return f"rank {MPI.COMM_WORLD.rank} of {MPI.COMM_WORLD.size}"


def _end_job_after(kind, error: BaseException, trace) -> None:
    """Instead of Python's excepthook: the other ranks would wait for this one for ever."""
    if MPI.COMM_WORLD.rank == 0 or not isinstance(error, KeyboardInterrupt):  # which the first rank has seen, too
        end_job(error)


class MpiProcess:
    """What all groups of this rank share: what it is doing, how it waits, its messages under way, and its reports.

    on_report: is called on rank 0, while that waits and between its steps.
    """

    def __init__(self, on_report: Callable[[int, object], None] | None):
        self.comm = MPI.COMM_WORLD.Dup()  # for reports and for agreeing on the end
        machine = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)  # the ranks that share one
        self.on_report, self.patience = on_report, Patience(machine.size > (os.cpu_count() or 1))
        machine.Free()
        self.groups: list[MpiGroup] = []
        self.meanwhile: Callable[[], object] = lambda: None  # what else can be done while this rank waits
        self.begun, self.doing = 0, ""  # instructions and collectives begun, and the last instruction
        self.reported = self.taken = 0  # reports sent by this rank, taken by rank 0
        self.wants_stop, self.steps_begun = False, 0
        self.agreement: tuple[MPI.Request, np.ndarray] | None = None  # whether any rank wants to stop: under way
        self._sending: deque[tuple[MPI.Request, object]] = deque()  # with the memory that they need
        self._coming: deque[tuple[MPI.Request, int, bytearray]] = deque()  # reports, and the ranks they are of

    def send(self, comm: MPI.Comm, message, dst: int) -> None:
        """Send a message that nobody will change any more; returns at once."""
        self._sending.append((comm.Isend([message, MPI.BYTE], dst), message))

    def report(self, message) -> None:
        content = packed("the report", message)  # also from rank 0 to itself: what it holds goes on changing
        self.reported += 1
        if self.comm.rank:
            self.send(self.comm, content, 0)
        else:
            self._take(0, content)

    def _take(self, rank: int, content: bytes | bytearray) -> None:
        self.taken += 1
        if self.on_report is not None:
            self.on_report(rank, pickle.loads(content))

    def take_reports(self) -> None:
        """Take the reports that have come."""
        if self.comm.rank:
            return
        status = MPI.Status()
        while (found := self.comm.Improbe(status=status)) is not None:
            content = bytearray(status.Get_count(MPI.BYTE))
            self._coming.append((found.Irecv([content, MPI.BYTE]), status.Get_source(), content))
        while self._coming and self._coming[0][0].Test():
            _, rank, content = self._coming.popleft()
            self._take(rank, content)

    def all_sent(self) -> bool:
        """Whether all messages of this rank have left it; forgets those that have."""
        while self._sending and self._sending[0][0].Test():
            self._sending.popleft()
        return not self._sending

    def pause(self) -> None:
        """Give way to other processes for a moment, then bring on what is pending in any group."""
        self.patience.give_way(self.begun)
        self.all_sent()
        self.take_reports()
        for group in self.groups:
            if group.in_flight:
                group.progress()
        self.meanwhile()

    def ask_to_stop(self) -> bool:
        """Have all ranks stop before the same step; false if none has begun yet."""
        self.wants_stop = True
        return self.steps_begun > 0

    def close(self) -> None:
        """All ranks are through: give back what MPI has few of."""
        for group in self.groups:
            group.comm.Free()
        self.comm.Free()
