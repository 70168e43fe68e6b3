"""Monitor: one call per step, and every place that wants its values gets them."""

from __future__ import annotations

import unicodedata
from contextlib import ExitStack
from os import PathLike

import numpy as np
from rich.console import Console

from minidl.monitor.log_files import CSVFile, JSONLinesFile
from minidl.monitor.terminal import Terminal, error_console
from minidl.validation import check_count

NO_NAME = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of control characters, halves of characters, line breaks


class Monitor:
    """Logs scalars per step.

        with Monitor(total=steps, csv="run.csv", tensorboard="runs/a") as monitor:
            for step in range(steps):
                ...
                monitor.log(step, loss=loss, lr=optimizer.lr)

    total: the number of steps, if known, for what is left of them. csv, jsonl: files; a column that comes later is
    empty in the rows before. tensorboard: a folder for an event file; needs the extra `tensorboard`. terminal: show
    progress there, or in a notebook; where it is neither, a line now and then. append: go on with the files of an
    earlier run, whose rows from the first step that is logged now are dropped; otherwise the first row replaces them
    all. Files are made with the first row. Each row is in its file when `log` returns.

    A monitor is also a callback of `parallel.train`: `callbacks=[monitor]` logs the loss and the seconds of each step,
    and the loss and accuracy of evaluations. OSError if a file cannot be written; ValueError if one to go on with is no
    log, or the folder has events and they are not to be gone on with.
    """

    def __init__(
        self,
        total: int | None = None,
        csv: str | PathLike | None = None,
        jsonl: str | PathLike | None = None,
        tensorboard: str | PathLike | None = None,
        append: bool = False,
        terminal: bool = True,
        console: Console | None = None,
    ):
        if total is not None:
            check_count("total", total, 0)
        self._sinks, self._begun = [], False
        with ExitStack() as opened:  # closes what is open already if the next one fails
            for kind, path in ((CSVFile, csv), (JSONLinesFile, jsonl)):
                if path is not None:
                    self._add(kind(path, append), opened)
            if tensorboard is not None:
                from minidl.monitor.tensorboard import EventFile  # an optional dependency

                self._add(EventFile(tensorboard, append), opened)
            if terminal:
                self._add(Terminal(total, console or error_console()), opened)
            self._open = opened.pop_all()

    def _add(self, sink, opened: ExitStack) -> None:
        opened.callback(sink.close)
        self._sinks.append(sink)

    def log(self, step: int, /, **values) -> None:
        """Log values of the step, counted from 0: numbers, or tensors and arrays of one element.

        A name that is no Python name goes in as `**{"test/loss": 0.1}`. TypeError: a value is no number. ValueError: a
        name is that of the column "step", or cannot stand in a line of a file.
        """
        if self._open is None:
            raise RuntimeError("the monitor is closed: log inside its `with` block")
        check_count("step", step, least=0)
        numbers = {name: _number(name, value) for name, value in values.items()}
        for sink in self._sinks:
            if not self._begun:
                sink.begin(int(step))
            sink.write(int(step), numbers)
        self._begun = True

    def __call__(self, record) -> None:
        """Log a StepRecord of `parallel.train`."""
        values = {"loss": record.loss, "seconds": record.seconds}
        if record.evaluation is not None:
            values |= {"test_loss": record.evaluation.loss, "test_accuracy": record.evaluation.accuracy}
        self.log(record.step, **values)

    def close(self) -> None:
        """Close the files and leave the terminal; done at the end of a `with` block, also of one that fails."""
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def _number(name: str, value) -> int | float:
    if name == "step":
        raise ValueError('"step" is the name of the column of steps: log the value under another one')
    if not name or any(unicodedata.category(c) in NO_NAME for c in name):
        raise ValueError(f"a value cannot be logged under the name {name!r}: it must have characters that can be read")
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        given = f"a {type(value).__name__}" + (f" of shape {array.shape}" if array.size != 1 else "")
        raise TypeError(f"{name} is to be logged as a number, or a tensor of one element, not as {given}")
    number = array.reshape(()).item()
    return int(number) if isinstance(number, bool) else number
