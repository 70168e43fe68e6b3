"""The command line: what it answers to good and to bad input, and what it leaves behind."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lessons import work
from lessons.__main__ import main
from lessons.lesson import Lesson, lesson, lessons
from lessons.percent import read_cells
from lessons.run import run
from lessons.verdict import Verdict
from minidl.commands.arguments import Refused
from tests.leftovers import children
from tests.terminals import BROKEN, CODES, printed_on

pytestmark = pytest.mark.usefixtures("warm_workers")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments) -> str:
    """The one line with which the command refuses `arguments`."""
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lessons: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["run"], "required: N"),
        (["run", "99"], "there is no lesson '99': choose one of 1"),
        (["run", "one"], "there is no lesson 'one'"),
        (["check", "-1"], "-1"),
        (["start", "1", "--bogus"], "--bogus"),
        (["start", "1", "--out", "file"], "cannot make the folder file: it is not a folder"),
        (["run", "1", "--out", "file/below"], "cannot make the folder file/below: Not a directory"),
        (["notebook", "99"], "there is no lesson '99'"),
        (["check", "1"], "lesson_01_autograd.py is not there: `python -m lessons start 1`"),
        (["hint", "1"], "lesson_01_autograd.py is not there"),
        (["check", "1", "missing.py"], "missing.py is not there"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_code_2(folder, capsys, arguments, reason):
    (folder / "file").touch()
    assert reason in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments", [["--help"], *([c, "--help"] for c in ("list", "run", "start", "check", "hint", "notebook"))]
)
def test_help_is_there_for_every_command(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: python -m lessons" in capsys.readouterr().out


def test_help_says_how_to_open_a_lesson_as_a_notebook(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(
        name in shown
        for name in ("pip install '.[notebooks]'", "python -m lessons notebook 1", "VS Code", "JupyterLab", "jupytext")
    )
    assert max(map(len, shown.splitlines())) <= 80


def test_a_notebook_needs_jupytext_and_says_how_to_get_it(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    assert "in the folder of minidl's source: pip install '.[notebooks]'" in refused(capsys, "notebook", "1")


def test_a_notebook_has_the_cells_of_the_lesson_and_never_overwrites(folder, capsys):
    pytest.importorskip("jupytext")
    assert main(["notebook", "1", "--out", "of/mine"]) == 0
    file = folder / "of" / "mine" / "01_autograd.ipynb"
    assert f"{file.relative_to(folder)} is lesson 1" in capsys.readouterr().out
    cells = json.loads(file.read_text())["cells"]
    expected = read_cells(lesson("1").path)
    assert [("".join(cell["source"]), cell["cell_type"]) for cell in cells] == [(c.source, c.kind) for c in expected]
    assert "is there already" in refused(capsys, "notebook", "1", "--out", "of/mine")


def test_a_folder_that_is_not_there_is_made_with_those_above_it(folder, capsys):
    assert main(["start", "1", "--out", "a/b"]) == 0
    assert (folder / "a" / "b" / "lesson_01_autograd.py").exists()


def test_start_gives_the_exercises_and_never_overwrites(folder, capsys):
    assert main(["start", "1"]) == 0
    file = folder / "lesson_01_autograd.py"
    assert file.read_text() == lesson("1").exercise_path.read_text()
    file.write_text("mine")
    capsys.readouterr()
    assert "is there already" in refused(capsys, "start", "1")
    assert file.read_text() == "mine"


def test_the_way_of_a_learner(folder, capsys):
    """start, check, hint, hint, the right answers, check: each step is remembered and shown."""

    def say(*arguments, code=0):
        assert main(list(arguments)) == code
        return capsys.readouterr().out

    assert "not started" in say("list")
    say("start", "1")
    assert "not checked yet" in say("list")
    assert say("check", "1", code=1).count("Not written yet.") == 3
    assert "0 of 3 right" in say("list")
    assert "divide(), hint 1 of 3" in say("hint", "1")
    assert "divide(), hint 2 of 3" in say("hint", "1")
    assert "0 of 3 right" in say("list")
    (folder / "lesson_01_autograd.py").write_text(lesson("1").answer_path.read_text())
    shown = say("list")
    assert "not checked yet" in shown and "\n0 of " in shown
    assert say("check", "1", "--json", "verdicts.json").count("right") == 3
    shown = say("list")
    assert "done" in shown and "\n3 of " in shown
    assert "nothing to hint at" in say("hint", "1")
    report = json.loads((folder / "verdicts.json").read_text())
    assert report["passed"] is True
    assert [e["exercise"] for e in report["exercises"]] == ["divide", "backward", "unbroadcast"]


def test_a_syntax_error_is_named_with_its_line(folder, capsys):
    (folder / "lesson_01_autograd.py").write_text("x = 1\ndef divide(a, b:\n    return\n")
    assert "syntax error in line 2 of lesson_01_autograd.py" in refused(capsys, "check", "1")


def test_a_file_that_is_no_text_is_refused(folder, capsys):
    (folder / "lesson_01_autograd.py").write_bytes(b"\x00\xff\x00")
    assert "lesson_01_autograd.py" in refused(capsys, "check", "1")


@pytest.mark.parametrize("source", ["-" * 100_000 + "1", "x = " + "+".join(["1"] * 100_000)])
def test_a_file_that_the_parser_gives_up_on_is_refused(folder, capsys, source):
    (folder / "lesson_01_autograd.py").write_text(source)
    assert "lesson_01_autograd.py" in refused(capsys, "check", "1")


def test_a_check_leaves_the_file_alone_whatever_its_name_and_adds_only_its_memory(folder, capsys):
    file = folder / "mine.txt"
    file.write_text(lesson("1").answer_path.read_text())
    assert main(["check", "1", "mine.txt"]) == 0
    assert {path.name for path in folder.iterdir()} == {"mine.txt", work.STATE_NAME}
    assert file.read_text() == lesson("1").answer_path.read_text()


def test_a_corrupt_memory_is_forgotten(folder, capsys):
    main(["start", "1"])
    digest = work._digest(folder / "lesson_01_autograd.py")

    def state(digest, passed):
        facts = {"digest": digest, "hints": {"divide": "x", "tanh": -1, "dot": True}, "passed": passed}
        return json.dumps({"01_autograd": facts})

    for text in (
        "{", "[]", "[" * 100_000, "\x80", "9" * 5000, '{"01_autograd": 3}', '{"01_autograd": {"hints": []}}',
        state(digest + 1, ["divide"]), state(digest, 1),
    ):  # fmt: skip
        (folder / work.STATE_NAME).write_text(text)
        assert main(["list"]) == 0
        assert "not checked yet" in capsys.readouterr().out
        found = work.recall(lesson("1"), folder / "lesson_01_autograd.py")
        assert found == {"hints": {}}
    (folder / work.STATE_NAME).write_text(state(digest, [3, []]))
    assert main(["list"]) == 0 and "0 of " in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused(folder, capsys, monkeypatch):
    """As root no folder is read-only, so the system's refusal is imitated."""

    def deny(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("minidl.files.tempfile.TemporaryFile", deny)
    monkeypatch.setattr("minidl.files.os.open", deny)
    assert "cannot write pictures into .: Permission denied" in refused(capsys, "run", "1")
    assert "cannot write lesson_01_autograd.py: Permission denied" in refused(capsys, "start", "1")


@pytest.mark.parametrize("kind", BROKEN)
def test_what_a_command_does_is_kept_whatever_becomes_of_the_terminal(folder, capsys, monkeypatch, kind):
    def code(*arguments):
        return printed_on(monkeypatch, kind, main, arguments)

    assert code("start", "1") == CODES[kind] and (folder / "lesson_01_autograd.py").exists()
    assert code("list") == CODES[kind]
    capsys.readouterr()
    monkeypatch.setattr(
        "lessons.__main__.verdict_on", lambda lesson, file, exercise: Verdict(exercise.name, False, "m", "×")
    )
    assert code("check", "1", "--json", "verdicts.json") == 1
    assert json.loads((folder / "verdicts.json").read_text())["passed"] is False
    assert code("hint", "1") == CODES[kind] and "hint" in (folder / work.STATE_NAME).read_text()
    line = "lessons: cannot write the output: No space left on device\n" if kind == "full disk" else ""
    checking = [f"{i} of 3: checking {name}()\n" for i, name in enumerate(("divide", "backward", "unbroadcast"), 1)]
    assert capsys.readouterr().err == "".join(checking) + line + checking[0] + line


def test_where_the_verdicts_cannot_go_is_said_before_anything_is_checked(folder, capsys):
    main(["start", "1"])
    capsys.readouterr()
    assert "cannot write nowhere/x: No such file" in refused(capsys, "check", "1", "--json", "nowhere/x")


def test_the_list_has_one_line_a_lesson_in_80_columns_and_counts_the_time_of_the_exercises(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    every = lessons().values()
    assert len(lines) == len(every) + 3
    for line, each in zip(lines[1:], every, strict=False):
        assert f"{each.minutes} + {each.exercise_minutes} min" in line and each.title in line
    both = sum(each.minutes for each in every), sum(each.exercise_minutes for each in every)
    assert f"{both[0]} + {both[1]} min in all" in lines[-2]


@pytest.mark.parametrize("columns", ["0", "20", "40"])
def test_no_word_of_the_list_is_lost_on_a_narrow_terminal(folder, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list"]) == 0
    assert {"parallelism,", "simulated", "started", "30", "+", "40", "min"} <= set(capsys.readouterr().out.split())


def test_ctrl_c_ends_a_check_with_one_line_and_no_process(folder):
    (folder / "lesson_01_autograd.py").write_text("import pathlib\npathlib.Path('ready').touch()\nwhile True: pass\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lessons", "check", "1"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (folder / "ready").exists():
        assert process.poll() is None
    (judge,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "1 of 3: checking divide()\n\nlessons: ended with Ctrl-C\n"
    assert process.returncode == 130
    assert not Path(f"/proc/{judge}").exists()


def test_a_check_whose_runner_is_killed_ends_as_well(folder):
    (folder / "lesson_01_autograd.py").write_text("import pathlib\npathlib.Path('ready').touch()\nwhile True: pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "lessons", "check", "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    while not (folder / "ready").exists():
        assert process.poll() is None
    (judge,) = children(process.pid)
    watched = os.pidfd_open(judge)
    process.kill()
    process.wait()
    assert select.select([watched], [], [], 60)[0], "the judge still runs a minute after its runner was killed"
    os.close(watched)


@pytest.fixture
def small_lesson(tmp_path, monkeypatch):
    path = tmp_path / "small.py"
    path.write_text("# %% [markdown]\n# # Small\n\n# %%\nprint('first')\n# %%\nprint(1 / zero)\n")
    monkeypatch.setattr(Lesson, "path", path)
    monkeypatch.chdir(tmp_path)
    return lesson("1")


def test_an_error_in_a_lesson_shows_the_line_of_the_lesson(small_lesson, capsys, tmp_path):
    assert run(small_lesson, tmp_path, False, Console()) is False
    captured = capsys.readouterr()
    assert "first" in captured.out
    assert 'small.py", line 7' in captured.err
    assert "run.py" not in captured.err


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
def test_a_lesson_goes_on_whatever_becomes_of_the_terminal(small_lesson, monkeypatch, tmp_path, kind):
    head = "# %% [markdown]\n# # Small ×\n# About 1 minutes to read and run, and 1 for the exercises\n"
    small_lesson.path.write_text(f"{head}\n# %%\nprint('first ×', flush=True)\n# %%\nopen('picture', 'w').close()\n")
    assert printed_on(monkeypatch, kind, main, ["run", "1"]) == CODES.get(kind, 0)
    assert (tmp_path / "picture").exists()


def test_step_waits_before_each_code_cell(small_lesson, capsys, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    run(small_lesson, tmp_path, True, Console())
    assert [question[:11] for question in asked] == ["cell 2 of 3", "cell 3 of 3"]


@pytest.mark.parametrize("error", [EOFError, RuntimeError("input(): lost sys.stdin")])
def test_step_without_a_terminal_is_refused(small_lesson, tmp_path, monkeypatch, error):
    def closed(question):
        raise error

    monkeypatch.setattr("builtins.input", closed)
    with pytest.raises(Refused, match="--step waits for Enter"):
        run(small_lesson, tmp_path, True, Console())
