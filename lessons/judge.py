"""The process in which one answer runs, with its limits; `lessons.check` starts it.

It sends two messages: one when the libraries are loaded and the clock may start, then the verdict as JSON, {"passed",
"mistake", "message"}. It ends when the other side of the connection is closed.
"""

import json
import math
import os
import resource
import sys
import traceback
from pathlib import Path

from lessons.catalog import load
from lessons.exercise import Exercise, Mistake, OverBudget
from minidl.messages import Messages
from minidl.spawn import end_with
from minidl.streams import lasting_streams


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


def judge(exercise: Exercise, path: Path) -> dict:
    """Load the learner's file and check one exercise of it; whatever the answer raises becomes a sentence."""
    try:
        answer = getattr(load(path), exercise.name, None)
        if not callable(answer):
            raise Mistake("missing", f"{path.name} has no function {exercise.name}().")
        exercise.check(answer)
    except Mistake as mistake:
        return _failed(mistake.name, mistake.message)
    except OverBudget as error:
        return _failed("over budget", str(error))
    except NotImplementedError:
        return _failed("not written", "Not written yet.")
    except MemoryError:
        return _failed("memory", f"It needs more than its budget of {exercise.megabytes} MB of memory.")
    except RecursionError:
        return _failed(
            "recursion", "It calls itself too deeply for Python's stack: keep a list of what is still to do."
        )
    except SystemExit:
        return _failed("error", "It calls sys.exit().")
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f" (line {lines[-1]} of {path.name})" if lines else ""
        return _failed("error", f"It raises {type(error).__name__}: {error}{where}.")
    return {"passed": True, "mistake": None, "message": ""}


def _failed(mistake: str, message: str) -> dict:
    return {"passed": False, "mistake": mistake, "message": message}


def _limit(exercise: Exercise) -> None:
    """Let this process take `megabytes` more memory than it has now, and no more processor time than its budget allows.

    The clock of the budget is in the parent; the limit here holds even when nobody is left to look at a clock.
    """
    used = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (used + exercise.megabytes * 2**20,) * 2)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    seconds = math.ceil(spent + 2 * exercise.seconds * (os.cpu_count() or 1))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
