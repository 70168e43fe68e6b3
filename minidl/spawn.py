"""How a process of our own begins, seen from here and from there; and that it ends when its parent does."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from minidl.messages import Messages

# What the new Python runs: it looks for modules where this process does, and not first in the current folder.
ENTER = "import sys; sys.path[:] = {path!r}; from minidl.spawn import enter; enter{arguments!r}"
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOK_SECONDS = 0.001  # between two looks whether a start that was interrupted is undone


def environment(threads: int) -> dict[str, str]:
    """That of this process, in which BLAS takes `threads` threads; it is heeded as BLAS is loaded."""
    return os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"OMP_WAIT_POLICY": "passive"}


def start(module: str, fds: Sequence[int], arguments: Sequence, threads: int, own_group: bool) -> subprocess.Popen:
    """Start a Python that runs `main(Messages(fds[0]), *fds[1:], *arguments)` of `module`.

    It is in this process's group, so that Ctrl-Z stops it and `fg` goes on with it; but Ctrl-C reaches this process
    alone, which then ends it. It dies when this process dies. threads: of its BLAS. own_group: it leads a group of its
    own instead.
    """
    path = [str(p) for p in sys.path]
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def popen() -> subprocess.Popen:
        if cores is not None:
            os.sched_setaffinity(0, cores)  # the new process has those of the thread that starts it
        return subprocess.Popen(
            [sys.executable, "-c", ENTER.format(path=path, arguments=(module, os.getpid(), tuple(fds), *arguments))],
            env=environment(threads),
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            start_new_session=own_group,
        )

    return _starter(os.getpid()).start(popen)


def exit_code(process: subprocess.Popen) -> int | None:
    """How it ended, None as long as it runs. ChildProcessError if SIGCHLD is ignored, or somebody else has asked.

    Popen.poll would say 0 then.
    """
    if process.returncode is None:
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            process.returncode = 0  # so that Popen does not warn that it still runs
            raise
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


class _Start:
    """A process that is to be started by `popen`: then there is a `process`, or an `error`, and `told` gets an item."""

    def __init__(self, popen: Callable[[], subprocess.Popen]):
        self._popen = popen
        self.process: subprocess.Popen | None = None
        self.error: BaseException | None = None
        self.undone = False
        self.told: queue.SimpleQueue[None] = queue.SimpleQueue()

    def do(self) -> None:
        try:
            self.process = self._popen()
        except BaseException as error:
            self.error = error
        self.told.put(None)

    def undo(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.undone = True


class _Starter:
    """The thread that starts all processes of this one, and lives as long as this one.

    Linux ends a process that asked for it when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG). What it
    starts also has its signal mask: it begins with Ctrl-C held off, until it can say that it ignores it.
    """

    def __init__(self):
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="starts processes", daemon=True).start()

    def start(self, popen: Callable[[], subprocess.Popen]) -> subprocess.Popen:
        """What `popen()` returns, or raises, in that thread. Interrupted by Ctrl-C it leaves no process."""
        start = _Start(popen)
        try:
            self._calls.put(start.do)
            start.told.get()
        except BaseException:
            # Served after `do`, if that was asked for. Waited for, as a process that starts needs the caller's files;
            # not by a lock, which another Ctrl-C might leave in any state.
            self._calls.put(start.undo)
            while not start.undone:
                time.sleep(LOOK_SECONDS)
            raise
        if start.error is not None:
            raise start.error
        return start.process

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while True:
            self._calls.get()()


@lru_cache(1)
def _starter(process: int) -> _Starter:
    """That of `process`: a fork has no threads but the one that forked."""
    return _Starter()


def enter(module: str, parent: int, fds: Sequence[int], *arguments) -> None:
    """The first that a process does which `start` started, and the last: Python then ends it."""
    begin_under(parent)
    importlib.import_module(module).main(Messages(socket.socket(fileno=fds[0])), *fds[1:], *arguments)
    gc.freeze()  # all ends with the process: Python need not look three times for what is garbage, as it ends


def begin_under(parent: int) -> None:
    """Leave Ctrl-C to the process `parent`, and, on Linux, end when the thread of it that started this process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if sys.platform == "linux":  # elsewhere it ends when it finds its connection closed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def end_with(parent: Messages) -> None:
    """From now on exit as soon as the parent's end is closed, even in the middle of a computation.

    On Linux the kernel sees to it too, should that computation never let this process's other threads run.
    """

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.receive()
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
