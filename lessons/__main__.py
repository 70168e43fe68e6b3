"""The command line: python -m lessons list | run N | start N | check N | hint N | notebook N."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lessons import notebook, run, work
from lessons.exercise import Exercise
from lessons.lesson import Lesson, lesson, lessons
from lessons.verdict import Verdict, report, verdict_on
from minidl.commands.arguments import Parser, called, check_writable, made_folder
from minidl.commands.driver import EXIT_CODES, Outcome, answer
from minidl.commands.output import print_table
from minidl.commands.progress import progress

Command = Callable[[argparse.Namespace, Console], Outcome]
EPILOG = f"""\
a lesson, from beginning to end:
  python -m lessons run 1      read it and run its experiment; its pictures go
                               into the current folder
  python -m lessons start 1    get its exercises as lesson_01_autograd.py
  python -m lessons check 1    check what you wrote
  python -m lessons hint 1     a hint for the first exercise that is not right
                               yet; again for the next hint

a lesson as a notebook:
  {notebook.INSTALL}       in the folder of minidl's source
  python -m lessons notebook 1     makes 01_autograd.ipynb
Lessons and exercises are Python files in percent format: VS Code runs their
cells as they are, JupyterLab with jupytext opens them as notebooks.

{EXIT_CODES}`check` gives 1, too, where an exercise is not right yet.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    return answer("lessons", parser, arguments)


def parser() -> Parser:
    top = Parser(called("lessons"), description="Lessons on deep learning and on training in parallel.", epilog=EPILOG)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "list", help="the lessons, the time each takes, and how far you are in the current folder"
    )
    command.set_defaults(run=show_list)

    def add(name: str, run: Command, text: str) -> Parser:
        """A command of one lesson."""
        command = commands.add_parser(name, help=text)
        command.add_argument("lesson", type=lesson, metavar="N", help="the number of the lesson")
        command.set_defaults(run=run)
        return command

    command = add("run", run_lesson, "read a lesson and run its experiment")
    command.add_argument("--step", action="store_true", help="wait for Enter before each code cell")
    _add_out(command, "the pictures")
    _add_out(add("start", start_exercises, "copy the exercises of a lesson, to be filled in"), "the file")
    command = add("check", check_work, "check your answers")
    _add_file(command)
    command.add_argument("--json", type=Path, metavar="PATH", help="also write the verdicts to this file")
    _add_file(add("hint", give_hint, "a hint for the first exercise that is not right yet"))
    command = add("notebook", make_notebook, "make a notebook of a lesson; needs the extra `notebooks`")
    _add_out(command, "the notebook")
    return top


def _add_out(command: Parser, what: str) -> None:
    text = f"folder for {what}, made if it is not there (default: here)"
    command.add_argument("--out", type=Path, default=Path(), metavar="DIR", help=text)


def _add_file(command: Parser) -> None:
    text = "your file, or the folder it is in (default: the current folder)"
    command.add_argument("file", type=Path, nargs="?", default=Path(), metavar="FILE", help=text)


def show_list(chosen: argparse.Namespace, console: Console) -> Outcome:
    table = Table("lesson", "title", "time", "your work here", box=None, header_style="bold")
    every = lessons().values()
    for each in every:
        minutes = f"{each.minutes} + {each.exercise_minutes} min"
        table.add_row(str(each.number), each.title, minutes, work.describe(each, Path()))
    reading, writing = sum(each.minutes for each in every), sum(each.exercise_minutes for each in every)
    exercises = sum(len(each.exercises()) for each in every)
    right = sum(work.right(each, Path()) or 0 for each in every)

    def show(console: Console) -> None:
        print_table(console, table)
        _say(
            console,
            f"time: to read and run the lesson + for its exercises; {reading} + {writing} min in all",
            f"{right} of {exercises} exercises are right",
        )

    return Outcome(show=show)


def run_lesson(chosen: argparse.Namespace, console: Console) -> Outcome:
    return Outcome(code=0 if run.run(chosen.lesson, made_folder(chosen.out), chosen.step, console) else 1)


def start_exercises(chosen: argparse.Namespace, console: Console) -> Outcome:
    about, target = chosen.lesson, work.start(chosen.lesson, made_folder(chosen.out))
    names = ", ".join(f"{exercise.name}()" for exercise in about.exercises())
    return _said(f"{target} is yours: write {names}; then `python -m lessons check {about.number}`.")


def check_work(chosen: argparse.Namespace, console: Console) -> Outcome:
    about, file = chosen.lesson, work.find(chosen.lesson, chosen.file)
    check_writable(chosen.json)
    verdicts = [verdict for _, verdict in judged(about, file)]
    kept = work.remember(about, file, passed=[v.exercise for v in verdicts if v.passed])
    document = report(about, file, verdicts)

    def show(console: Console) -> None:
        for verdict in verdicts:
            mark, text = ("[green]right[/]", "") if verdict.passed else ("[red]not yet[/]", escape(verdict.message))
            console.print(f"{mark}  [bold]{verdict.exercise}()[/]  {text}", soft_wrap=True, highlight=False)
        if not kept:
            _say(console, f"{file.parent} cannot be written: `list` will not remember this check.")

    return Outcome([(chosen.json, document)], show, 0 if document["passed"] else 1)


def judged(about: Lesson, file: Path) -> Iterator[tuple[Exercise, Verdict]]:
    """Each exercise and the verdict on it, one after the other."""
    exercises = about.exercises()
    with progress() as tell:
        for done, exercise in enumerate(exercises):
            tell(f"checking {exercise.name}()", done, len(exercises))
            yield exercise, verdict_on(about, file, exercise)


def give_hint(chosen: argparse.Namespace, console: Console) -> Outcome:
    about, file = chosen.lesson, work.find(chosen.lesson, chosen.file)
    for exercise, verdict in judged(about, file):
        if verdict.passed:
            continue
        hints = work.recall(about, file)["hints"]
        number = min(hints.get(exercise.name, 0), len(exercise.hints) - 1)
        said = [f"{exercise.name}(), hint {number + 1} of {len(exercise.hints)}: {exercise.hints[number]}"]
        if not work.remember(about, file, hints=hints | {exercise.name: number + 1}):
            said.append(f"{file.parent} cannot be written: the next `hint` will give this hint again.")
        return _said(*said)
    return _said("All exercises are right: nothing to hint at.")


def make_notebook(chosen: argparse.Namespace, console: Console) -> Outcome:
    target = notebook.write(chosen.lesson, made_folder(chosen.out))
    return _said(f"{target} is lesson {chosen.lesson.number}: open it in JupyterLab or VS Code.")


def _said(*lines: str) -> Outcome:
    return Outcome(show=lambda console: _say(console, *lines))


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
