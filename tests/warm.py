"""Workers of tests that are not about how workers start: forked from a process that has imported what workers need.

A worker's imports take half a second of a core, the steps of a test often milliseconds. `Popen` stands in for
subprocess.Popen in minidl.processes: the same command then runs in a copy of the server, with the same environment,
folder, open files and numbers of them.
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

from minidl.processes import THREAD_VARIABLES

THREADS = dict.fromkeys(THREAD_VARIABLES, "1")  # read at import: a worker with others is started as ever
IMPORTED = ("minidl.data.worker", "minidl.models", "minidl.parallel.runtime.child", "numba")
ABOVE = 512  # file descriptors that the server has open itself lie below


class Server:
    def __init__(self):
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        enter = f"import sys; sys.path[:] = {sys.path!r}; from tests import warm; exec(warm.serve({theirs.fileno()}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", enter],
            env=os.environ | THREADS | {"OMP_WAIT_POLICY": "passive"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()

    def popen(self, command, *, env, pass_fds, stdin, start_new_session):
        """As subprocess.Popen, for what minidl.processes asks of it."""
        if stdin != subprocess.DEVNULL or not start_new_session or THREADS.items() - env.items():
            return subprocess.Popen(
                command, env=env, pass_fds=pass_fds, stdin=stdin, start_new_session=start_new_session
            )
        return Process(self.requests, command, env, (1, 2, *pass_fds))

    def close(self):
        self.requests.close()
        self.process.wait()


class Process:
    """What minidl.processes uses of subprocess.Popen's result."""

    def __init__(self, requests: socket.socket, command, env, fds):
        self._status, theirs = os.pipe()
        request = pickle.dumps((command, env, os.getcwd(), fds))
        socket.send_fds(requests, [request], [theirs, *fds])
        os.close(theirs)
        self.args, self.returncode = command, None
        self.pid = int.from_bytes(os.read(self._status, 4), "little")

    def poll(self):
        """The exit code, None as long as it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int.from_bytes(os.read(self._status, 4), "little", signed=True)
            os.close(self._status)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def serve(fd: int) -> str:
    """Fork a worker for each request until the other end is closed. In a worker: returns the code that it shall run."""
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
                sys.exit()
            pid = os.fork()
            if not pid:
                return _become(*pickle.loads(message), fds[1:])
            status, *others = fds
            os.write(status, pid.to_bytes(4, "little"))
            for other in others:
                os.close(other)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = pid, status
            events.register(pidfd, selectors.EVENT_READ)


def _become(command, env, folder, numbers, fds) -> str:
    """The server's copy becomes the process that was asked for, with `fds` under the `numbers` they had there."""
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD, ABOVE) for fd in fds]
    os.closerange(3, ABOVE)
    for fd, number in zip(safe, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    python, option, code = command
    assert python == sys.executable and option == "-c"
    return code
