"""The learner's work: the file to fill in, and what the last check said about it.

What is remembered lies beside that file, in `.minidl-lessons.json`; without it, or where it cannot be written, nothing
but the memory is lost.
"""

import json
import zlib
from pathlib import Path

from lessons.lesson import Lesson
from minidl import files, json_files
from minidl.commands.arguments import Refused, check_writable

STATE_NAME = ".minidl-lessons.json"


def new_file(folder: Path, name: str, content: str | bytes) -> Path:
    """Put a file of the learner's own into `folder`; Refused if it is there already or cannot be written."""
    target = folder / name
    if target.exists():
        raise Refused(f"{target} is there already and is left as it is: move it away to start again")
    check_writable(target)
    files.write(target, content)
    return target


def start(lesson: Lesson, folder: Path) -> Path:
    """Copy the exercises into `folder`; Refused as `new_file`."""
    return new_file(folder, lesson.work_name, lesson.exercise_path.read_bytes())


def find(lesson: Lesson, path: Path) -> Path:
    """The learner's file for `lesson`: `path`, or in it if it is a folder. Refused if it cannot be read as Python."""
    file = path / lesson.work_name if path.is_dir() else path
    try:
        compile(file.read_bytes(), str(file), "exec")
    except FileNotFoundError:
        raise Refused(
            f"{file} is not there: `python -m lessons start {lesson.number}` makes {lesson.work_name}"
        ) from None
    except SyntaxError as error:
        where = f"line {error.lineno} of {file.name}" if error.lineno else file.name
        raise Refused(f"syntax error in {where}: {error.msg}") from None
    except (RecursionError, MemoryError):  # as the parser's own stack has it
        raise Refused(f"cannot read {file}: an expression in it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    return file.resolve()


def remember(lesson: Lesson, file: Path, **facts) -> bool:
    """Keep `facts` about the learner's file as it is now; whether that was possible."""
    state = _read(file.parent)
    state[lesson.name] = {"digest": _digest(file), **recall(lesson, file), **facts}
    try:
        files.write(file.parent / STATE_NAME, json.dumps(state, indent=1))
    except OSError:
        return False
    return True


def recall(lesson: Lesson, file: Path) -> dict:
    """What is remembered about the learner's file: `passed`, a list of exercises, and `hints`, exercise -> count.

    `passed` is forgotten as soon as the file changes.
    """
    facts = _read(file.parent).get(lesson.name)
    known: dict = {"hints": {}}
    match facts:
        case {"hints": dict(hints)}:
            known["hints"] = {name: count for name, count in hints.items() if type(count) is int and count >= 0}
    match facts:
        case {"passed": list(passed), "digest": digest} if file.exists() and digest == _digest(file):
            known["passed"] = [name for name in passed if isinstance(name, str)]
    return known


def right(lesson: Lesson, folder: Path) -> int | None:
    """How many exercises of the learner's work in `folder` are right; None if it has not been checked as it is now."""
    file = folder / lesson.work_name
    passed = recall(lesson, file).get("passed") if file.is_file() else None
    return None if passed is None else sum(exercise.name in passed for exercise in lesson.exercises())


def describe(lesson: Lesson, folder: Path) -> str:
    """The state of the learner's work in a few words."""
    if not (folder / lesson.work_name).is_file():
        return "not started"
    there_are, are_right = len(lesson.exercises()), right(lesson, folder)
    if are_right is None:
        return "not checked yet"
    return "done" if are_right == there_are else f"{are_right} of {there_are} right"


def _read(folder: Path) -> dict:
    try:
        state = json_files.read_json(folder / STATE_NAME)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _digest(file: Path) -> int:
    return zlib.crc32(file.read_bytes())
