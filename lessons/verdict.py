"""Verdicts on a learner's file: each exercise is judged in a process of its own, ended when its time is over."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lessons.exercise import Exercise
from lessons.lesson import Lesson
from minidl.commands.arguments import Refused
from minidl.processes import ChildProcess, end, news

STARTUP_SECONDS = 60  # for importing the libraries, before the clock of a budget starts


@dataclass(frozen=True)
class Verdict:
    """On one exercise. mistake: None, or a short name; message: the sentence to the learner, empty when passed."""

    exercise: str
    passed: bool
    mistake: str | None
    message: str


def verdict_on(lesson: Lesson, file: Path, exercise: Exercise) -> Verdict:
    """Judge one exercise of `file` within its budget. No process of it is left, however it ends."""
    arguments = (str(lesson.check_path), exercise.name, str(file))
    process = ChildProcess("lessons.judge", "the exercise", 0, arguments=arguments, own_group=True)
    try:
        if _answer(process, STARTUP_SECONDS) is None:
            raise Refused(f"Python did not start within {STARTUP_SECONDS} seconds: this machine is too busy")
        verdict = _answer(process, exercise.seconds)
        if verdict is None:
            message = (
                f"It is not done after its budget of {exercise.seconds:g} seconds: a loop never ends or does too much."
            )
            return Verdict(exercise.name, False, "time", message)
        return Verdict(exercise.name, **json.loads(verdict))
    except EOFError:
        how = process.how_it_ended()
        return Verdict(exercise.name, False, "died", f"Its process {how} before it gave an answer.")
    finally:
        end([process], grace_seconds=0)


def _answer(process: ChildProcess, seconds: float) -> bytes | None:
    """What the process sends next, None if nothing within `seconds`. EOFError if it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        for _, message in news([process], max(0.0, left)):
            if message is None:
                raise EOFError
            return message[1]
        if left <= 0:
            return None


def report(lesson: Lesson, file: Path, verdicts: list[Verdict]) -> dict:
    """The verdicts as data for a program."""
    return {
        "lesson": lesson.number,
        "file": str(file),
        "passed": all(v.passed for v in verdicts),
        "exercises": [asdict(v) for v in verdicts],
    }
