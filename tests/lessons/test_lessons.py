"""Every lesson runs from beginning to end through the runner, and leaves its pictures."""

import itertools
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from lessons.__main__ import main
from lessons.lesson import lessons
from lessons.percent import read_cells
from simulator.calibrate import cache_path

pytestmark = pytest.mark.usefixtures("warm_workers")

ROOT = Path(__file__).parents[2]
LESSONS = list(lessons().values())


@dataclass
class Steps:
    """What lesson 3 reads of a Run, and of a Prediction."""

    step_times: list
    step_seconds: float = 0.0


@pytest.fixture
def calibrated(real_calibration, tmp_path, monkeypatch):
    """This machine's calibration is in the cache already."""
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "cache"))
    cache_path().parent.mkdir()
    cache_path().write_text(json.dumps(asdict(real_calibration[0])))


FEWER = {  # what lesson 3 measures and simulates, and here: a busy machine once, as any other
    "MEASURED_BATCHES = [4, 16, 64, 256, 1024]": "MEASURED_BATCHES = [4, 1024]",
    "PATIENCE = 20": "PATIENCE = 0",
    "SIMULATED_BATCHES = [2**k for k in range(1, 11)]": "SIMULATED_BATCHES = [4, 64, 1024]",
}
RUNS = [
    *(pytest.param(lesson, FEWER if lesson.number == 3 else {}, id=lesson.name) for lesson in LESSONS),
    pytest.param(LESSONS[2], {}, id=f"{LESSONS[2].name}, all of it", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("lesson", "changes"), RUNS)
def test_a_lesson_runs_and_saves_every_picture_that_it_names(lesson, changes, tmp_path, monkeypatch, capsys, request):
    if "simulator.calibrate" in lesson.path.read_text():
        request.getfixturevalue("calibrated")
    cells = read_cells(lesson.path)
    for line, other in changes.items():
        assert sum(line in cell.source for cell in cells) == 1
        cells = [replace(cell, source=cell.source.replace(line, other)) for cell in cells]
    monkeypatch.setattr("lessons.run.read_cells", lambda path: cells)
    folder = tmp_path / "not" / "there"
    monkeypatch.chdir(ROOT)
    assert main(["run", str(lesson.number), "--out", str(folder)]) == 0
    pictures = set(re.findall(r'(?:savefig|\.draw)\("(.+?)"', lesson.path.read_text()))
    assert pictures and pictures == {path.name for path in folder.iterdir()}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    shown = capsys.readouterr().out
    assert all(name in shown for name in pictures)


@pytest.mark.parametrize(
    ("times", "slower", "rounds", "said"),
    [
        ([1e-3], 1.0, 1, []),
        ([1e-3, 1e-3, 1e-3, 1e-3, 3e-3], 1.0, 2, ["BUSY", "200% longer", "`python -m lessons run 3`"]),
        ([1e-3], 1.6, 1, ["another speed", "1.60 times", "simulator calibrate --refresh", "`python -m lessons run 3`"]),
    ],
    ids=["quiet", "busy", "slower"],
)
def test_lesson_3_says_how_noisy_the_machine_is_and_offers_to_run_again(times, slower, rounds, said, capsys):
    first, *cells = [cell for cell in read_cells(LESSONS[2].path) if cell.kind == "code"]
    (measuring,) = [cell for cell in cells if "def measure_all" in cell.source]
    trained, time_of_a_step = [], itertools.cycle(times)
    namespace = {"here": None, "calibrated": None}
    exec(first.compile(LESSONS[2].path), namespace)
    namespace["train"] = lambda *arguments, **options: trained.append(1) or Steps([next(time_of_a_step)])
    namespace["simulate"] = lambda *arguments, **options: Steps([], 1e-3)
    namespace["drift"] = lambda calibrated: (slower, 9.0)
    exec(measuring.compile(LESSONS[2].path), namespace)
    assert len(trained) == rounds * 2 * (len(namespace["WIDTHS"]) * (len(namespace["MEASURED_BATCHES"]) + 1) + 1)
    shown = capsys.readouterr().out
    assert "how noisy this machine is" in shown and all(words in shown for words in said)
    assert said or "again" not in shown


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_says_what_it_is_and_names_its_exercises(lesson):
    text = "\n".join(cell.source for cell in read_cells(lesson.path) if cell.kind == "markdown")
    assert text.startswith(f"# {lesson.number}. {lesson.title}\n")
    for exercise in lesson.exercises():
        assert f"`{exercise.name}(" in text
        assert f"def {exercise.name}(" in lesson.exercise_path.read_text()


def test_the_package_ships_every_file_of_a_lesson():
    for lesson in LESSONS:
        for path in lesson.path, lesson.exercise_path, lesson.check_path, lesson.answer_path:
            assert path.exists()
            assert (path.parent / "__init__.py").exists(), "setuptools ships modules of packages only"


def test_no_lesson_tells_a_learner_where_the_answers_are():
    for lesson in LESSONS:
        for path in lesson.path, lesson.exercise_path:
            assert "answers/" not in path.read_text() and os.sep + "checks" not in path.read_text()
