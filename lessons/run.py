"""Running a lesson: its text rendered, its code shown and executed, cell by cell, in this process."""

import os
import sys
import traceback
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax

from lessons.lesson import Lesson
from lessons.percent import read_cells
from minidl import files
from minidl.commands.arguments import Refused


def run(lesson: Lesson, folder: Path, step: bool, console: Console) -> bool:
    """Run the lesson with `folder` as current folder, where its pictures go; whether all cells ran without an error.

    With `step`, wait for Enter before each code cell. Line numbers are those of the lesson's file: a breakpoint there
    stops, and `breakpoint()` in a cell opens the debugger on it.
    """
    _enter(folder)
    os.environ.setdefault("MPLBACKEND", "Agg")
    cells = read_cells(lesson.path)
    namespace = {"__name__": "__main__", "__file__": str(lesson.path)}
    for number, cell in enumerate(cells, 1):
        if cell.kind == "markdown":
            console.print(Markdown(cell.source), "")
            continue
        console.print(Syntax(cell.source, "python", line_numbers=True, start_line=cell.line, word_wrap=True), "")
        if step:
            _wait(number, len(cells))
        if not _execute(cell.compile(lesson.path), namespace):
            return False
        sys.stdout.flush()
        console.print()
    return True


def _execute(code, namespace: dict) -> bool:
    try:
        exec(code, namespace)
    except Exception as error:
        # The first frame is this function: the lesson's own frames begin after it.
        traceback.print_exception(type(error), error, error.__traceback__.tb_next)
        return False
    return True


def _enter(folder: Path) -> None:
    """Make `folder` the current folder; Refused unless files can be written there."""
    try:
        os.chdir(folder)
        files.check_takes_files(".")
    except OSError as error:
        raise Refused(f"cannot write pictures into {folder}: {error.strerror}; choose a folder with --out") from None


def _wait(number: int, count: int) -> None:
    try:
        input(f"cell {number} of {count}: Enter runs it, Ctrl-C leaves ")
    except (EOFError, RuntimeError):  # RuntimeError: standard input is closed
        raise Refused("--step waits for Enter, but there is no terminal to press it on") from None
