"""The process of one worker, which enters by `main`; what it shall run comes from the launcher."""

import contextlib
import logging
import os
import pickle
import sys

from minidl.arena import Arena
from minidl.messages import Messages
from minidl.packing import packed, packed_error
from minidl.parallel.runtime.logs import ForwardToLauncher
from minidl.parallel.runtime.process import Aborted, Process
from minidl.parallel.runtime.shared import SharedMemoryGroup
from minidl.spawn import end_with


def main(launcher: Messages, arena_fd: int) -> None:
    try:
        (_, setup), (_, work) = launcher.receive(), launcher.receive()
    except (EOFError, OSError):
        return  # the launcher has ended before it said what to do
    end_with(launcher)
    try:
        group = _join(launcher, pickle.loads(setup), arena_fd)
        function, args, kwargs = pickle.loads(work)
        group.status.tell_start()
        kind, content = "result", packed("the result", function(group, *args, **kwargs))
    except Aborted:  # at once, as the launcher waits: to end Python takes many times as long
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its disk is full, or it has been closed
                stream.flush()
        os._exit(1)
    except BaseException as error:
        kind, content = "error", packed_error(error)
    with contextlib.suppress(OSError):  # the launcher has stopped listening: another rank failed first
        launcher.send(kind, content)


def _join(launcher: Messages, setup: dict, arena_fd: int) -> SharedMemoryGroup:
    """Settle down as `setup` says, and join the group of all workers."""
    rank, workers = setup["rank"], setup["workers"]
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})
    send_record = ForwardToLauncher(lambda record: launcher.send("log", packed("the log record", record)), rank)
    logging.basicConfig(handlers=[send_record], force=True)
    for name, level in setup["log_levels"].items():
        logging.getLogger(name).setLevel(level)
    process = Process(
        Arena(workers, setup["row_bytes"], arena_fd), rank, setup["crowded"],
        lambda message: launcher.send("report", packed("the report", message)),
    )  # fmt: skip
    return SharedMemoryGroup(process, tuple(range(workers)))
