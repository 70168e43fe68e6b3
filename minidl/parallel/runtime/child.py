"""The process of one worker, which enters by `main`; the function to run comes through the control connection."""

import contextlib
import logging
import os
import threading
from multiprocessing.connection import Connection

import cloudpickle

from minidl.arena import Arena
from minidl.parallel.runtime.logs import ForwardToLauncher
from minidl.parallel.runtime.process import Aborted, Process
from minidl.parallel.runtime.shared import SharedMemoryGroup
from minidl.processes import end_with_parent, with_traceback


class Control:
    """This worker's connection to the launcher, on which threads may take turns."""

    def __init__(self, fd: int):
        self._connection = Connection(fd)
        self._lock = threading.Lock()

    def receive(self):
        return self._connection.recv_bytes()

    def send(self, kind: str, content: object) -> None:
        self.send_bytes(cloudpickle.dumps((kind, content)))

    def send_bytes(self, message: bytes) -> None:
        with self._lock:
            self._connection.send_bytes(message)

    def die_with_launcher(self) -> None:
        """Exit as soon as the launcher's end is closed, even in the middle of a computation.

        On Linux the kernel sees to it too, should that computation never let this process's other threads run.
        """

        def wait():
            try:
                self._connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
        end_with_parent()


def main(control_fd: int, arena_fd: int) -> None:
    control = Control(control_fd)
    try:
        setup, payload = cloudpickle.loads(control.receive()), control.receive()
    except (EOFError, OSError):
        return  # the launcher has ended before it said what to do
    control.die_with_launcher()
    rank, workers = setup["rank"], setup["workers"]
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})
    logging.basicConfig(handlers=[ForwardToLauncher(lambda record: control.send("log", record), rank)], force=True)
    for name, level in setup["log_levels"].items():
        logging.getLogger(name).setLevel(level)

    arena = Arena(workers, setup["row_bytes"], arena_fd)
    process = Process(arena, rank, setup["crowded"], lambda message: control.send("report", message))
    group = SharedMemoryGroup(process, tuple(range(workers)))
    try:
        work, args, kwargs = cloudpickle.loads(payload)
        process.status.tell_start()
        message = _result_message(work(group, *args, **kwargs))
    except Aborted:
        message = cloudpickle.dumps(("aborted", None))
    except BaseException as error:
        message = cloudpickle.dumps(("error", with_traceback(error)))
    with contextlib.suppress(OSError):  # the launcher has stopped listening: another rank failed first
        control.send_bytes(message)


def _result_message(result: object) -> bytes:
    try:
        return cloudpickle.dumps(("result", result))
    except Exception as error:
        raise TypeError(f"the result, a {type(result).__name__}, cannot be sent to the launcher: {error}") from error
