"""Scalars in an event file that TensorBoard reads. The format is written by tensorboardX, the extra `tensorboard`."""

import os
import time
from os import PathLike
from pathlib import Path

from minidl.files import check_takes_files

try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
except ImportError:
    raise ImportError(
        "to log for TensorBoard, install the extra `tensorboard`, in the folder of minidl's source: "
        "pip install '.[tensorboard]'"
    ) from None


class EventFile:
    """One event per step, in a new file of the folder; both are made for the first one."""

    def __init__(self, folder: str | PathLike, append: bool):
        folder = Path(folder)
        self.folder, self.append = folder.absolute(), append
        self.writer: EventsWriter | None = None
        check_takes_files(next(there for there in (self.folder, *self.folder.parents) if there.exists()))
        if not append and any(folder.glob("events*.tfevents.*")):
            raise ValueError(
                f"{folder} has the events of another run, which TensorBoard would draw as one with this: "
                "choose another folder, or append=True to go on"
            )

    def begin(self, step: int) -> None:
        """Tell TensorBoard to drop what the earlier files of the folder have from this step on."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(self.folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        self.writer.flush()
        if self.append:
            self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: dict[str, int | float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=scalars)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.writer.write_event(event)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
