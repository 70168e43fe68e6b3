"""The command line: python -m lessons list | run N | start N | check N | hint N."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lessons import check, progress, run
from lessons.catalog import Lesson, Refused, lesson, lessons
from minidl import files

EPILOG = """\
a lesson, from beginning to end:
  python -m lessons run 1      read it and run its experiment; pictures go into the current folder
  python -m lessons start 1    get its exercises as lesson_01_autograd.py
  python -m lessons check 1    check what you wrote
  python -m lessons hint 1     a hint for the first exercise that is not right yet; again for the next hint

exit code: 0 all went well; 1 an exercise is not right yet, or a lesson stopped with an error;
2 what was asked for cannot be done, and one line says why; 130 ended with Ctrl-C.
"""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message):
        raise Refused(f"{message} (see `{self.prog} --help`)")


def parser() -> Parser:
    top = Parser(
        "python -m lessons",
        description="Lessons on deep learning and on training in parallel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("list", help="the lessons, the time each takes, and how far you are in the current folder")

    command = commands.add_parser("run", help="read a lesson and run its experiment")
    command.add_argument("lesson", metavar="N", help="the number of the lesson")
    command.add_argument("--step", action="store_true", help="wait for Enter before each code cell")
    command.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder for the pictures (default: here)"
    )

    command = commands.add_parser("start", help="copy the exercises of a lesson, to be filled in")
    command.add_argument("lesson", metavar="N", help="the number of the lesson")
    command.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for the file (default: here)")

    for name, text in ("check", "check your answers"), ("hint", "a hint for the first exercise that is not right yet"):
        command = commands.add_parser(name, help=text)
        command.add_argument("lesson", metavar="N", help="the number of the lesson")
        command.add_argument(
            "file",
            type=Path,
            nargs="?",
            default=Path(),
            metavar="FILE",
            help="your file, or the folder it is in (default: the current folder)",
        )
        if name == "check":
            command.add_argument("--json", type=Path, metavar="PATH", help="also write the verdicts to this file")
    return top


def show_list(console: Console) -> int:
    table = Table("lesson", "title", "time", "your work here", box=None, header_style="bold")
    for each in lessons().values():
        table.add_row(str(each.number), each.title, f"{each.minutes} min", progress.describe(each, Path()))
    console.print(table)
    return 0


def run_lesson(chosen: Lesson, out: Path, step: bool, console: Console) -> int:
    return 0 if run.run(chosen, out, step, console) else 1


def start_exercises(chosen: Lesson, out: Path, console: Console) -> int:
    target = progress.start(chosen, out)
    names = ", ".join(f"{exercise.name}()" for exercise in chosen.exercises())
    _say(console, f"{target} is yours: write {names}; then `python -m lessons check {chosen.number}`.")
    return 0


def check_work(chosen: Lesson, path: Path, json_path: Path | None, console: Console) -> int:
    file = check.read_work(chosen, path)
    verdicts = []
    for exercise in chosen.exercises():
        with console.status(f"checking {exercise.name}()"):
            verdict = check.check(chosen, file, exercise)
        mark, text = ("[green]right[/]", "") if verdict.passed else ("[red]not yet[/]", escape(verdict.message))
        console.print(f"{mark}  [bold]{exercise.name}()[/]  {text}", soft_wrap=True, highlight=False)
        verdicts.append(verdict)
    if not progress.remember(chosen, file, passed=[v.exercise for v in verdicts if v.passed]):
        _say(console, f"{file.parent} cannot be written: `list` will not remember this check.")
    report = check.report(chosen, file, verdicts)
    if json_path is not None:
        _write(json_path, json.dumps(report, indent=1) + "\n")
    return 0 if report["passed"] else 1


def give_hint(chosen: Lesson, path: Path, console: Console) -> int:
    file = check.read_work(chosen, path)
    for exercise in chosen.exercises():
        with console.status(f"checking {exercise.name}()"):
            verdict = check.check(chosen, file, exercise)
        if verdict.passed:
            continue
        hints = progress.recall(chosen, file)["hints"]
        number = min(hints.get(exercise.name, 0), len(exercise.hints) - 1)
        _say(console, f"{exercise.name}(), hint {number + 1} of {len(exercise.hints)}: {exercise.hints[number]}")
        if not progress.remember(chosen, file, hints=hints | {exercise.name: number + 1}):
            _say(console, f"{file.parent} cannot be written: the next `hint` will give this hint again.")
        return 0
    _say(console, "All exercises are right: nothing to hint at.")
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _write(path: Path, text: str) -> None:
    try:
        files.write(path, text)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    console = Console()
    try:
        chosen = vars(parser().parse_args(arguments))
        command = chosen.pop("command")
        if command == "list":
            return show_list(console)
        number = lesson(chosen.pop("lesson"))
        if command == "run":
            return run_lesson(number, chosen["out"], chosen["step"], console)
        if command == "start":
            return start_exercises(number, chosen["out"], console)
        if command == "check":
            return check_work(number, chosen["file"], chosen["json"], console)
        return give_hint(number, chosen["file"], console)
    except Refused as error:
        print(f"lessons: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nlessons: ended with Ctrl-C", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
