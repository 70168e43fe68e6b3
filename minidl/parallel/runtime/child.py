"""The process of one worker: `python -m minidl.parallel.runtime.child CONTROL_FD ARENA_FD`.

It enters here and never runs the user's script again; the function to run comes through the control connection.
"""

import logging
import os
import sys
import threading
import traceback
from multiprocessing.connection import Connection

import cloudpickle

from minidl.arena import Arena
from minidl.parallel.runtime.memory import keep_freed_memory
from minidl.parallel.runtime.shared import Aborted, Process, SharedMemoryGroup


class Control:
    """This worker's connection to the launcher, on which threads may take turns."""

    def __init__(self, fd: int):
        self._connection = Connection(fd)
        self._lock = threading.Lock()

    def receive(self):
        return self._connection.recv_bytes()

    def send(self, kind: str, content: object) -> None:
        message = cloudpickle.dumps((kind, content))
        with self._lock:
            self._connection.send_bytes(message)

    def die_with_launcher(self) -> None:
        """Exit as soon as the launcher's end is closed, even in the middle of a computation."""

        def wait():
            try:
                self._connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


class ForwardToLauncher(logging.Handler):
    """Sends every log record, with this worker's rank, to the launcher, whose handlers deal with it."""

    def __init__(self, control: Control, rank: int):
        super().__init__()
        self._control, self._rank = control, rank

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        record.rank = self._rank
        self._control.send("log", record)


def main(control_fd: int, arena_fd: int) -> None:
    control = Control(control_fd)
    setup = cloudpickle.loads(control.receive())
    payload = control.receive()
    control.die_with_launcher()
    rank, workers = setup["rank"], setup["workers"]
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})
    keep_freed_memory()
    sys.path[:] = setup["path"]
    logging.basicConfig(level=setup["log_level"], handlers=[ForwardToLauncher(control, rank)], force=True)

    process = Process(Arena(workers, setup["row_bytes"], arena_fd), rank)
    group = SharedMemoryGroup(process, tuple(range(workers)))
    group.report = lambda message: control.send("report", message)
    try:
        work, args, kwargs = cloudpickle.loads(payload)
        control.send("result", work(group, *args, **kwargs))
    except Aborted:
        control.send("aborted", None)
    except BaseException as error:
        text = traceback.format_exc()
        try:
            control.send("error", (text, error))
        except Exception:  # an exception that cannot be pickled
            control.send("error", (text, None))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
