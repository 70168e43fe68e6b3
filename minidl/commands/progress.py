"""How far a command is, on standard error: a bar where that is a terminal, else a line for each part."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from minidl.monitor.terminal import error_console


class Tell(Protocol):
    """Told what begins now and, where it is one of several parts, how many are done and how many there are in all."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None: ...


@contextmanager
def progress() -> Iterator[Tell]:
    """Gives the function to tell. The bar leaves nothing behind; the standard streams must be lasting (driver.py)."""
    console = error_console(notebook=False)
    if not console.is_interactive:
        yield lambda what, done=0, total=None: print(_line(what, done, total), file=sys.stderr, flush=True)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done=0, total=None: bar.update(
            task, description=_line(what, done, total), completed=done, total=total
        )


def _line(what: str, done: int, total: int | None) -> str:
    return what if total is None else f"{done + 1} of {total}: {what}"
