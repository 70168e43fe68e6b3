"""Progress for people: live on a terminal and in a notebook, else a line now and then."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TextColumn

from minidl.streams import Lasting
from minidl.units import duration

SECONDS_PER_LINE = 10.0  # between two lines where the output is no terminal
SECONDS_PER_LOOK = 0.1  # between two changes of what is shown live
LINES = 10  # of a training whose progress is wanted where it cannot be shown live


def error_console(notebook: bool = True) -> Console:
    """A console on standard error, by which no run ends.

    notebook: whether it writes into the cell where it is in one; rich's own displays need ipywidgets for that.
    """
    file = Lasting(sys.stderr)
    live = None if file.isatty() else False  # else rich draws in a pipe, too, where FORCE_COLOR is set
    return Console(file=file, force_terminal=live, force_jupyter=None if notebook else False)


class Terminal:
    """The step of how many, the time of a step, the time left, and the last value of each name.

    transient: leave nothing behind on a terminal. lines: how many to print of `total` steps where nothing can be shown
    live; None for one every SECONDS_PER_LINE, and the last.
    """

    def __init__(self, total: int | None, console: Console, transient: bool = False, lines: int | None = None):
        self.total, self.console, self.transient, self.lines = total, console, transient, lines
        self.values: dict[str, float] = {}
        self.first: tuple[int, float] | None = None  # step and time
        self.last: tuple[int, float] | None = None
        self.shown, self.shown_step = time.monotonic(), -1
        self.live: _Bar | _Cell | None = None

    def begin(self, step: int) -> None:
        """A terminal holds no rows of an earlier run."""

    def write(self, step: int, values: dict[str, int | float]) -> None:
        self.values |= values
        self.last = step, time.monotonic()
        if self.first is None:
            self.first = self.last
            self.live = self._begin_live() if self.can_be_live else None
        if self._is_due():
            self._show()

    @property
    def can_be_live(self) -> bool:
        """Whether its output is a terminal that no other display of rich is at, or a notebook."""
        return self.console.is_jupyter or self.console.is_interactive and not isinstance(sys.stderr, FileProxy)

    def _begin_live(self) -> _Bar | _Cell:
        return _Cell(self.total) if self.console.is_jupyter else _Bar(self.total, self.console, self.transient)

    def _is_due(self) -> bool:
        step, now = self.last
        if self.live:
            return self.shown_step < 0 or now - self.shown >= SECONDS_PER_LOOK
        if self.lines is None:
            return now - self.shown >= SECONDS_PER_LINE
        return (step + 1) * self.lines // self.total > step * self.lines // self.total

    def _show(self) -> None:
        (self.shown_step, self.shown), line = self.last, self._line()
        if self.live:
            self.live.show(self.shown_step + 1, line)
        else:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        (step, now), (first, began) = self.last, self.first
        done = step + 1
        parts = [f"step {done}" + (f"/{self.total}" if self.total else "")]
        if step > first and now > began:
            seconds = (now - began) / (step - first)
            parts.append(f"{duration(seconds)} a step")
            if self.total and done < self.total:
                parts.append(f"{timedelta(seconds=round((self.total - done) * seconds))} left")
        return "  ".join([*parts, *(f"{name} {value:.4g}" for name, value in self.values.items())])

    def close(self) -> None:
        """Show where it ended; a short run has no line."""
        if self.last is None:
            return
        long = self.lines is None and time.monotonic() - self.first[1] >= SECONDS_PER_LINE
        if (self.live or long) and self.shown_step != self.last[0]:
            self._show()
        if self.live:
            self.live.close()


class _Bar:
    """A bar on a terminal, drawn anew when it is told so: no thread does."""

    def __init__(self, total: int | None, console: Console, transient: bool):
        columns = BarColumn(bar_width=20), TextColumn("{task.description}", markup=False)
        self.progress = Progress(
            *columns, console=console, transient=transient, auto_refresh=False,
            redirect_stdout=Lasting(sys.stdout).isatty(),  # what is printed stands above; but a file gets its own
        )  # fmt: skip
        self.task = self.progress.add_task("", total=total)
        self.progress.start()

    def show(self, done: int, line: str) -> None:
        self.progress.update(self.task, completed=done, description=line, refresh=True)

    def close(self) -> None:
        self.progress.stop()


class _Cell:
    """A bar in the output of a notebook's cell, where it stays. Rich would need ipywidgets for it."""

    def __init__(self, total: int | None):
        self.total, self.handle = total, None

    def show(self, done: int, line: str) -> None:
        from IPython.display import display  # there is a notebook, so there is IPython

        bar = f'<progress value="{done}" max="{self.total}"></progress> ' if self.total else ""
        shown = {"text/plain": line, "text/html": f"{bar}{html.escape(line)}"}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)

    def close(self) -> None:
        """It stays as it is."""


@contextmanager
def training_progress(total: int, wanted: bool | None) -> Iterator[list[Callable]]:
    """The callbacks that show how far a training of `total` steps is: one, or none where it is not to be shown.

    wanted: None for on a terminal and in a notebook alone, and not where another display is live.
    """
    terminal = Terminal(total, error_console(), transient=True, lines=LINES if wanted else 0)
    if wanted is False or wanted is None and not terminal.can_be_live:
        yield []
        return
    try:
        yield [lambda record: terminal.write(record.step, {"loss": record.loss})]
    finally:
        terminal.close()
