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
from contextlib import contextmanager, suppress

from minidl import spawn
from minidl.messages import Messages

IMPORTED = ("minidl.data.worker", "minidl.models", "minidl.parallel.runtime.child")

_server: ForkServer | None = None  # the one by which this process has its processes started


@contextmanager
def forkserver() -> Iterator[None]:
    """Inside, workers with one BLAS thread begin as copies of a process that has imported minidl and Numba.

    For programs that launch many times, as `python -m simulator compare` does: a launch takes some 30 ms instead of
    500, and the first use of a compiled kernel 50 ms instead of 1,000. Only on Linux; elsewhere they start as ever. A
    worker sees the environment, the folder and the path of the process that launches it, as they are then.
    """
    if _current() or not hasattr(os, "pidfd_open"):
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


def _current() -> ForkServer | None:
    """The server of this process: a fork of it has none."""
    return _server if _server and _server.owner == os.getpid() else None


def start(module: str, fds: Sequence[int], arguments: Sequence, threads: int, own_group: bool):
    """As `spawn.start`; the process is forked where there is a server for it."""
    server = _current()
    if server is None or threads != ForkServer.THREADS:
        return spawn.start(module, fds, arguments, threads, own_group)
    request = module, arguments, spawn.environment(threads), own_group, os.getcwd(), sys.path
    return Forked(server.requests, fds, request)


def exit_code(process: subprocess.Popen | Forked) -> int | None:
    """As `spawn.exit_code`."""
    return process.exit_code() if isinstance(process, Forked) else spawn.exit_code(process)


class ForkServer:
    """The process that forks, seen from here. With it, or with this process, ends all that it has forked."""

    THREADS = 1  # of BLAS, which heeds them as it is imported

    def __init__(self):
        self.owner = os.getpid()
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = spawn.start(__name__, [theirs.fileno()], (), self.THREADS, own_group=False)

    def close(self) -> None:
        self.requests.close()
        self._process.kill()
        self._process.wait()


class Forked:
    """A process that the server has forked, seen from here."""

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
                raise ConnectionError("the process that workers are forked from has ended")
        except BaseException:  # a process that was forked finds its connection closed, and ends
            os.close(self._status)
            raise
        self.pid = pid

    def exit_code(self) -> int | None:
        """How it ended, None as long as it runs."""
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            code = self._number()
            self._code = -signal.SIGKILL if code is None else code  # with the server dies all that it has forked
            os.close(self._status)
        return self._code

    def _number(self) -> int | None:
        """The next number that the server tells, None if it has ended."""
        content = os.read(self._status, 4)
        return int.from_bytes(content, "little", signed=True) if len(content) == 4 else None


def main(parent: Messages) -> None:
    """The server: fork a process for each request until the other end is closed."""
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
            request, fds, *_ = socket.recv_fds(requests, 1 << 20, 64)
            if not request:
                os._exit(0)
            server, (status, *given) = os.getpid(), fds
            pid = os.fork()
            if not pid:
                events.close()
                requests.close()
                for fd in (status, *running, *(other for _, other in running.values())):
                    os.close(fd)
                _become(server, given, *pickle.loads(request))
            _tell(status, pid)
            for fd in given:
                os.close(fd)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, status
            events.register(pidfd, selectors.EVENT_READ)


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


def _become(server: int, fds, module, arguments, environment, own_group, folder, path) -> None:
    """The server's copy becomes the process that was asked for. fds: its output, its errors, and its files."""
    output, errors, *files = fds
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    if own_group:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    try:
        spawn.enter(module, server, files, *arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # Python, as it ends, would touch all that was copied: many times as long
