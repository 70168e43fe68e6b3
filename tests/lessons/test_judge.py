"""The judge: whatever an answer does becomes a sentence, within its limits, and leaves nothing behind."""

import os
from pathlib import Path

import pytest

from lessons.exercise import Exercise
from lessons.lesson import Lesson, lesson
from lessons.verdict import verdict_on
from tests.leftovers import until

pytestmark = pytest.mark.usefixtures("warm_workers")

JUDGED = """
from lessons.exercise import Exercise

def check_answer(answer):
    answer()

EXERCISES = [Exercise("answer", check_answer, ("",), None, megabytes=64)]
"""


@pytest.fixture
def verdict(tmp_path, monkeypatch):
    """The verdict on an answer with a given body, on a machine of our own making."""
    checks = tmp_path / "checks.py"
    checks.write_text(JUDGED)
    monkeypatch.setattr(Lesson, "check_path", checks)

    def judge(body, seconds=10):
        file = tmp_path / "work.py"
        file.write_text(f"def answer():\n    {body}\n")
        return verdict_on(lesson("1"), file, Exercise("answer", None, (), None, seconds))

    return judge


@pytest.mark.parametrize(
    ("body", "mistake", "message"),
    [
        ("raise NotImplementedError", "not written", "Not written yet."),
        ("return 1 / 0", "error", "ZeroDivisionError: division by zero (line 2 of work.py)"),
        ("return answer()", "recursion", "calls itself too deeply"),
        ("import sys; sys.setrecursionlimit(10**6); return answer()", "recursion limit", "is no way out"),
        ("import minidl; x = minidl.ones(1, requires_grad=True); x.sum().backward()", "borrowed", "by its autograd"),
        ("return bytearray(10**9)", "memory", "budget of 64 MB"),
        ("raise SystemExit", "error", "sys.exit()"),
        ("import os; os._exit(7)", "died", "exited with code 7"),
        ("import os; os.kill(os.getpid(), 9)", "died", "was killed by SIGKILL"),
        ("return input()", "error", "EOFError"),
    ],
)
def test_whatever_an_answer_does_becomes_a_sentence(verdict, body, mistake, message):
    given = verdict(body)
    assert (given.passed, given.mistake) == (False, mistake)
    assert message in given.message


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_an_answer_that_prints_where_nothing_can_be_printed_is_not_wrong_for_that(verdict):
    before = os.dup(1)
    with open("/dev/full", "w") as full:
        os.dup2(full.fileno(), 1)
    try:
        assert verdict("print('shown to nobody', flush=True)").passed
    finally:
        os.dup2(before, 1)
        os.close(before)


@pytest.mark.parametrize("body", ["while True: pass", "sum(range(10**15))", "import time; time.sleep(10**6)"])
def test_an_answer_that_never_ends_is_ended(verdict, body):
    assert verdict(body, seconds=0.5).mistake == "time"


def test_nothing_that_an_answer_started_is_left(verdict, tmp_path):
    body = "import subprocess; p = subprocess.Popen(['sleep', '1000']); open('pid', 'w').write(str(p.pid)); p.wait()"
    os.chdir(tmp_path)
    assert verdict(body, seconds=1).mistake == "time"
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")  # killed a moment ago
