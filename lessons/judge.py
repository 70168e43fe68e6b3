"""The process in which one answer runs, with its limits; `lessons.verdict` starts it.

It sends two messages: one when the libraries are loaded and the clock may start, then the verdict as JSON, {"passed",
"mistake", "message"}. It ends when the other side of the connection is closed.
"""

import json
import math
import os
import re
import reprlib
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from lessons.exercise import Exercise, Foul, Mistake
from lessons.lesson import load
from lessons.replacements import replacements
from minidl.messages import Messages
from minidl.processes import WorkerError
from minidl.spawn import end_with
from minidl.streams import lasting_streams

SHOWN = 60  # characters of a wrong result


def main(parent: Messages, check_path: str, name: str, answer_path: str) -> None:
    exercise = next(e for e in load(Path(check_path)).EXERCISES if e.name == name)
    end_with(parent)
    _limit(exercise)
    sys.dont_write_bytecode = True  # the learner's folder is the learner's
    for stream in (sys.stdout, sys.stderr):  # what an answer printed before it was killed is seen
        stream.reconfigure(line_buffering=True)
    with lasting_streams():  # that nobody hears it, behind a closed pipe, say, is no mistake of the answer
        parent.send("ready", b"")
        verdict = judge(exercise, Path(answer_path))
    parent.send("verdict", json.dumps(verdict).encode())


class Answer:
    """The learner's function, which must give something back if the exercise says so."""

    def __init__(self, function: Callable, exercise: Exercise):
        self._function, self._exercise = function, exercise
        self.has_returned, self.result = False, None

    def __call__(self, *arguments):
        self.has_returned = False
        self.result = self._function(*arguments)
        self.has_returned = True
        name, returns = self._exercise.name, self._exercise.returns
        if self.result is None and returns is not None:
            raise Mistake("no return", f"{name}() ends without a `return`: it gives None. It is to return {returns}.")
        return self.result


def judge(exercise: Exercise, path: Path) -> dict:
    """Load the learner's file and check one exercise of it: the verdict, as it is sent."""
    with replacements(exercise) as asked_for_depth:
        return _judge(exercise, path, asked_for_depth)


def _judge(exercise: Exercise, path: Path, asked_for_depth: list[int]) -> dict:
    """Whatever the answer raises becomes a sentence."""
    answer = None
    try:
        function = getattr(load(path), exercise.name, None)
        if not callable(function):
            raise Mistake("missing", f"{path.name} has no function {exercise.name}().")
        answer = Answer(function, exercise)
        exercise.check(answer)
    except (Mistake, Foul) as wrong:
        return _failed(wrong.name, wrong.message)
    except NotImplementedError:
        return _failed("not written", "Not written yet.")
    except MemoryError:
        return _failed("memory", f"It needs more than its budget of {exercise.megabytes} MB of memory.")
    except RecursionError:
        deeply = "It calls itself too deeply for Python's stack: keep a list of what is still to do."
        if asked_for_depth:
            return _failed("recursion limit", f"{deeply} To raise the recursion limit is no way out; here it stays.")
        return _failed("recursion", deeply)
    except SystemExit:
        return _failed("error", "It calls sys.exit().")
    except WorkerError as error:
        text = str(error).strip()
        lines = re.findall(rf'File "(?:<dynamic-code>|{re.escape(str(path))})", line (\d+)', text)
        cause = error.__cause__
        reason = f"{type(cause).__name__}: {cause}" if cause else text.splitlines()[-1]
        return _failed("worker", f"Its workers fail: {reason}{_where(lines, path)}.")
    except Exception as error:
        if answer is not None and answer.has_returned:
            return _failed("form", f"It gives {_short(answer.result)}; it is to return {exercise.returns}.")
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        return _failed("error", f"It raises {type(error).__name__}: {error}{_where(lines, path)}.")
    return {"passed": True, "mistake": None, "message": ""}


def _failed(mistake: str, message: str) -> dict:
    return {"passed": False, "mistake": mistake, "message": message}


def _where(lines: list, path: Path) -> str:
    """The last of the lines of the learner's file that an error came through."""
    return f" (line {lines[-1]} of {path.name})" if lines else ""


def _short(result) -> str:
    """One line that shows `result`, or its beginning and end."""
    shortened = reprlib.Repr()
    shortened.maxother = SHOWN
    return " ".join(shortened.repr(result).split())


def _limit(exercise: Exercise) -> None:
    """Let this process take `megabytes` more memory than it has now, and no more processor time than its budget allows.

    The clock of the budget is in the parent; the limit here holds even when nobody is left to look at a clock.
    """
    used = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (used + exercise.megabytes * 2**20,) * 2)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    seconds = math.ceil(spent + 2 * exercise.seconds * (os.cpu_count() or 1))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
