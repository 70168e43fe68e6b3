"""Every lesson runs from beginning to end through the runner, and leaves its pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lessons.catalog import lessons
from lessons.percent import read_cells

ROOT = Path(__file__).parents[2]
LESSONS = list(lessons().values())


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_runs_and_saves_every_picture_that_it_names(lesson, tmp_path):
    command = [sys.executable, "-m", "lessons", "run", str(lesson.number), "--out", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    pictures = set(re.findall(r'savefig\("(.+?)"', lesson.path.read_text()))
    assert pictures and pictures == {path.name for path in tmp_path.iterdir()}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    for name in pictures:
        assert name in ended.stdout


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
