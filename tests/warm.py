"""Workers of tests that are not about how workers start: forked from a process that has imported what workers need.

A worker's imports take half a second of a core, the steps of a test often milliseconds. `Server.start` and `exit_code`
stand in for those of minidl.spawn: the worker then begins in a copy of the server, with the same environment, folder,
paths and open files.
"""

import fcntl
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

from minidl import spawn
from minidl.processes import THREAD_VARIABLES

THREADS = dict.fromkeys(THREAD_VARIABLES, "1")  # read at import: a worker with others is started as ever
IMPORTED = ("minidl.data.worker", "minidl.models", "minidl.parallel.runtime.child", "numba")
ABOVE = 512  # file descriptors that the server has open itself lie below


class Server:
    def __init__(self):
        self._start, self._exit_code = spawn.start, spawn.exit_code
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        enter = f"import sys; sys.path[:] = {sys.path!r}; from tests import warm; warm.serve({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", enter],
            env=os.environ | THREADS | {"OMP_WAIT_POLICY": "passive"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()

    def start(self, module, fds, arguments, environment, own_group):
        """As spawn.start."""
        if THREADS.items() - environment.items():
            return self._start(module, fds, arguments, environment, own_group)
        return Process(self.requests, fds, (module, arguments, environment, own_group, os.getcwd(), sys.path))

    def exit_code(self, process):
        """As spawn.exit_code."""
        return process.exit_code() if isinstance(process, Process) else self._exit_code(process)

    def close(self):
        self.requests.close()
        self.process.wait()


class Process:
    """What minidl.processes uses of subprocess.Popen's result."""

    def __init__(self, requests: socket.socket, fds, request):
        self._status, theirs = os.pipe()
        socket.send_fds(requests, [pickle.dumps(request)], [theirs, 1, 2, *fds])
        os.close(theirs)
        self._code = None
        self.pid = self._number()

    def exit_code(self):
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            self._code = self._number()
            os.close(self._status)
        return self._code

    def _number(self) -> int:
        content = os.read(self._status, 4)
        if len(content) < 4:  # or its pid would be 0, and to kill that group would be to kill this one
            raise RuntimeError("the process that the workers of the tests are forked from has ended")
        return int.from_bytes(content, "little", signed=True)


def serve(fd: int) -> None:
    """Fork a worker for each request until the other end is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    requests, events = socket.socket(fileno=fd), selectors.DefaultSelector()
    events.register(requests, selectors.EVENT_READ)
    running = {}  # pidfd: (pid, where to write its exit code)
    while True:
        for key, _ in events.select():
            if key.fileobj is not requests:
                events.unregister(key.fileobj)
                pid, status = running.pop(key.fileobj)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(status, code.to_bytes(4, "little", signed=True))
                os.close(status)
                os.close(key.fileobj)
                continue
            message, fds, *_ = socket.recv_fds(requests, 1 << 20, 64)
            if not message:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                return
            server = os.getpid()
            pid = os.fork()
            if not pid:
                _become(server, fds[1:], *pickle.loads(message))
                return
            status, *others = fds
            os.write(status, pid.to_bytes(4, "little"))
            for other in others:
                os.close(other)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, status
            events.register(pidfd, selectors.EVENT_READ)


def _become(server, fds, module, arguments, environment, own_group, folder, path) -> None:
    """The server's copy becomes the worker that was asked for. fds: its output, its errors, and its files."""
    output, errors, *files = (fcntl.fcntl(fd, fcntl.F_DUPFD, ABOVE) for fd in fds)
    os.closerange(3, ABOVE)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    if own_group:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    spawn.enter(module, server, files, *arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python, as it ends, would touch all that was copied: five times as long as a short test's steps
