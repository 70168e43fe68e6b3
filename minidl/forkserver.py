"""Processes forked from one that has imported what they need, which takes milliseconds; `spawn` takes half a second."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from minidl import spawn
from minidl.messages import Messages
from minidl.streams import fill_standard_streams

IMPORTED = ("minidl.data.loader_worker", "minidl.models", "minidl.parallel.runtime.child")

_server: ForkServer | None = None  # the one by which this process has its processes started


@contextmanager
def forkserver() -> Iterator[None]:
    """Inside, workers with one BLAS thread begin as copies of a process that has imported minidl and Numba.

    For programs that launch many times, as `python -m simulator compare` does: a launch takes some 30 ms instead of
    500, and the first use of compiled kernels 150 ms instead of 1,000. Only on Linux; elsewhere, and where no copy can
    be had, they start as ever.

    A worker sees the environment, folder, path and cores of the process that launches it, as they are then. As they
    were when the block was entered it has the umask, the limits (`ulimit`), and what BLAS and Numba read from the
    environment as they are imported. As it ends it runs no `atexit` function and waits for no thread.
    """
    if _current() or not _can_watch():
        yield
        return
    server = ForkServer()
    try:
        with serving(server):
            yield
    finally:
        server.close()


@contextmanager
def serving(server: ForkServer) -> Iterator[None]:
    """Inside, `start` asks `server`."""
    global _server
    before, _server = _server, server
    try:
        yield
    finally:
        _server = before


def _can_watch() -> bool:
    """Whether the system has descriptors of processes, which take both a Python and a kernel that know them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _current() -> ForkServer | None:
    """The server of this process: a fork of it has none."""
    return _server if _server and _server.owner == os.getpid() else None


def start(module: str, fds: Sequence[int], arguments: Sequence, threads: int, own_group: bool):
    """As `spawn.start`; the process is forked where there is a server for it, and it can."""
    server = _current()
    if server is not None and threads == ForkServer.THREADS:
        with suppress(OSError):  # the server has died or is at a limit, or so large an environment cannot be sent
            world = spawn.environment(threads), os.getcwd(), sys.path, os.sched_getaffinity(0)
            return Forked(server.requests, fds, (module, arguments, own_group, *world))
    return spawn.start(module, fds, arguments, threads, own_group)


def exit_code(process: subprocess.Popen | Forked) -> int | None:
    """As `spawn.exit_code`."""
    return process.exit_code() if isinstance(process, Forked) else spawn.exit_code(process)


class ForkServer:
    """The process that forks, seen from here. With it, or with this process, ends all that it has forked."""

    THREADS = 1  # of BLAS, which heeds them as it is imported

    def __init__(self):
        fill_standard_streams()
        self.owner = os.getpid()
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = spawn.start(__name__, [theirs.fileno()], (), self.THREADS, own_group=False)

    def close(self) -> None:
        self.requests.close()
        self._process.kill()
        self._process.wait()


class Forked:
    """A process that the server has forked, seen from here. OSError: it has not."""

    def __init__(self, requests: socket.socket, fds: Sequence[int], request: tuple):
        self._status, theirs = os.pipe()
        self._code: int | None = None
        try:
            try:
                socket.send_fds(requests, [pickle.dumps(request)], [theirs, 1, 2, *fds])
            finally:
                os.close(theirs)
            pid = self._number()
            if pid is None:
                raise ConnectionError("the process that workers are forked from has ended, or cannot fork")
        except BaseException:  # a process that was forked finds its connection closed, and ends
            os.close(self._status)
            raise
        self.pid = pid
        self._tells = select.poll()
        self._tells.register(self._status, select.POLLIN)

    def exit_code(self) -> int | None:
        """How it ended, None as long as it runs."""
        if self._code is None and self._tells.poll(0):
            code = self._number()
            self._code = -signal.SIGKILL if code is None else code  # with the server dies all that it has forked
            os.close(self._status)
        return self._code

    def _number(self) -> int | None:
        """The next number that the server tells, None if it has closed its end."""
        content = os.read(self._status, 4)
        return int.from_bytes(content, "little", signed=True) if len(content) == 4 else None


def main(parent: Messages) -> None:
    """The server: fork a process for each request until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, as may be inherited, waitid fails
    requests, events = socket.socket(fileno=os.dup(parent.fileno())), selectors.DefaultSelector()
    parent.close()
    for name in IMPORTED:
        importlib.import_module(name)
    cpu_target = importlib.import_module("numba.core.registry").cpu_target
    cpu_target.typing_context.refresh()  # what Numba else does at the first use of a kernel, in half a second
    cpu_target.target_context.refresh()
    gc.collect()
    gc.freeze()
    events.register(requests, selectors.EVENT_READ)
    running: dict[int, tuple[int, int]] = {}  # pidfd -> pid, and where to write its exit code
    while True:
        for key, _ in events.select():
            if key.fileobj is not requests:
                events.unregister(key.fileobj)
                _tell_end(key.fileobj, *running.pop(key.fileobj))
                continue
            request, fds, flags, _ = socket.recv_fds(requests, 1 << 20, 64)
            if not request:
                os._exit(0)
            if not flags & socket.MSG_CTRUNC:  # else there were no descriptors left for some of `fds`
                with suppress(OSError):  # whoever asked finds `status` closed
                    _fork(request, fds, requests, events, running)
            for fd in fds:
                os.close(fd)


def _fork(request: bytes, fds: Sequence[int], requests, events, running: dict[int, tuple[int, int]]) -> None:
    """Fork the process of a request, watch it and tell its number. OSError: what that takes is not to be had."""
    server, pid = os.getpid(), os.fork()
    if not pid:
        try:
            events.close()
            requests.close()
            for fd in (fds[0], *running, *(status for _, status in running.values())):
                os.close(fd)
            _become(server, fds[1:], *pickle.loads(request))
        finally:
            os._exit(1)
    with ExitStack() as undo:
        undo.callback(os.waitpid, pid, 0)
        undo.callback(os.kill, pid, signal.SIGKILL)
        pidfd = os.pidfd_open(pid)
        undo.callback(os.close, pidfd)
        status = os.dup(fds[0])
        undo.callback(os.close, status)
        events.register(pidfd, selectors.EVENT_READ)
        undo.pop_all()
    running[pidfd] = pid, status
    _tell(status, pid)


def _tell_end(pidfd: int, pid: int, status: int) -> None:
    """Say how a process has ended, and only then let its number go to another: who has not heard of it may kill it."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    _tell(status, code)
    os.waitpid(pid, 0)
    os.close(status)
    os.close(pidfd)


def _tell(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever asked for the process has forgotten it
        os.write(status, number.to_bytes(4, "little", signed=True))


def _become(server: int, fds, module, arguments, own_group, environment, folder, path, cores) -> None:
    """The server's copy becomes the process that was asked for. fds: its output, its errors, and its files."""
    output, errors, *files = fds
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    code = 1
    try:
        if own_group:
            os.setsid()
        os.chdir(folder)
        os.sched_setaffinity(0, cores)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        np.random.seed()  # else all copies draw the same; Python's `random` sees to it by itself
        spawn.enter(module, server, files, *arguments)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its disk is full, or it has been closed
                stream.flush()
        os._exit(code)  # Python, as it ends, would touch all that was copied: many times as long
