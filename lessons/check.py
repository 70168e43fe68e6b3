"""Checking a learner's file: each exercise in a process of its own, ended when its time is over."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from pathlib import Path

from lessons.catalog import FOLDER, Lesson
from lessons.exercise import Exercise
from minidl.commands.arguments import Refused

STARTUP_SECONDS = 60  # for importing the libraries, before the clock of a budget starts


@dataclass(frozen=True)
class Verdict:
    """On one exercise. mistake: None, or a short name; message: the sentence to the learner, empty when passed."""

    exercise: str
    passed: bool
    mistake: str | None
    message: str


def read_work(lesson: Lesson, path: Path) -> Path:
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
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    return file.resolve()


def check(lesson: Lesson, file: Path, exercise: Exercise) -> Verdict:
    """Judge one exercise of `file` within its budget. No process of it is left, however it ends."""
    here, there = Pipe()
    arguments = [str(lesson.check_path), exercise.name, str(file), str(there.fileno())]
    path = os.pathsep.join([str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lessons.judge", *arguments],
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    there.close()
    try:
        if not here.poll(STARTUP_SECONDS):
            raise Refused(f"Python did not start within {STARTUP_SECONDS} seconds: this machine is too busy")
        here.recv_bytes()
        if not here.poll(exercise.seconds):
            message = (
                f"It is not done after its budget of {exercise.seconds:g} seconds: a loop never ends or does too much."
            )
            return Verdict(exercise.name, False, "time", message)
        return Verdict(exercise.name, **json.loads(here.recv_bytes()))
    except EOFError:
        return Verdict(exercise.name, False, "died", f"Its process {_ending(process.wait())} before it gave an answer.")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        here.close()


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def report(lesson: Lesson, file: Path, verdicts: list[Verdict]) -> dict:
    """The verdicts as data for a program."""
    return {
        "lesson": lesson.number,
        "file": str(file),
        "passed": all(v.passed for v in verdicts),
        "exercises": [asdict(v) for v in verdicts],
    }
