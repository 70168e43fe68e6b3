"""Processes of our own: they enter through a module of minidl, never run the user's script again, and end with us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Pipe

import cloudpickle

GRACE_SECONDS = 2.0  # for a process to notice that it is no longer needed, before it is killed
# What the new Python runs: it looks for modules where this process does, and not first in the current folder.
ENTER = "import sys; sys.path[:] = {path!r}; from {module} import main; main(*{fds})"
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class WorkerError(RuntimeError):
    """A worker raised, was killed, or hung. `rank` is the one that failed, None for a hang of the whole run."""

    def __init__(self, message: str, rank: int | None = None):
        super().__init__(message)
        self.rank = rank


class ChildProcess:
    """A new Python that runs `main(fd of its end of the connection, *fds)` of a module, and our end of the connection.

    fds: open files that it shall have too. threads: of its BLAS.
    """

    def __init__(self, module: str, fds: Sequence[int] = (), threads: int = 1):
        self.connection, theirs = Pipe()
        fds = (theirs.fileno(), *fds)
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENTER.format(path=[str(p) for p in sys.path], module=module, fds=fds)],
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"OMP_WAIT_POLICY": "passive"},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the new one
        )
        theirs.close()

    def send(self, *messages: bytes) -> None:
        """Send the messages; if the process has died, the next receive says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for message in messages:
                self.connection.send_bytes(message)

    def how_it_ended(self) -> str:
        """What became of a process that has closed its connection."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection to the launcher"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def end(processes: Sequence[ChildProcess], grace_seconds: float = GRACE_SECONDS) -> None:
    """Tell the processes to end by closing the connections, give them a moment, kill those that do not."""
    for process in processes:
        process.connection.close()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        try:
            process._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process._process.kill()
            process._process.wait()


def end_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent has ended, even in the middle of a computation.

    Only Linux does; elsewhere a process ends when it finds its connection closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def with_traceback(error: BaseException) -> tuple[str, BaseException | None]:
    """The traceback of the error being handled, and the error itself: None if it cannot be sent to another process."""
    text = traceback.format_exc()
    try:
        pickle.loads(cloudpickle.dumps(error))  # an exception with arguments of its own often cannot be made again
        return text, error
    except Exception:
        return text, None
