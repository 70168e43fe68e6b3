"""Every right answer is accepted, in whatever style; every known-wrong one is rejected for what is wrong with it."""

from dataclasses import replace
from pathlib import Path
from types import FunctionType

import pytest

from lessons.judge import judge
from lessons.lesson import lessons, load
from lessons.verdict import Verdict, verdict_on

STYLES = Path(__file__).with_name("styles.py")


def answers(lesson, path):
    """Names of the functions in a file of answers to the lesson: `exercise`, or `exercise__` and more."""
    names = {exercise.name for exercise in lesson.exercises()}
    module = load(path)
    functions = [name for name, value in vars(module).items() if isinstance(value, FunctionType)]
    return [name for name in functions if name.partition("__")[0] in names]


pytestmark = pytest.mark.usefixtures("warm_workers")

LESSONS = list(lessons().values())
ANSWERS = [(lesson, name) for lesson in LESSONS for name in answers(lesson, lesson.answer_path)]
RIGHT = [(lesson, name) for lesson, name in ANSWERS if "__" not in name]
WRONG = [(lesson, name) for lesson, name in ANSWERS if "__" in name]
STYLED = [(lesson, name) for lesson in LESSONS for name in answers(lesson, STYLES)]
RETURNING = [(lesson, exercise) for lesson in LESSONS for exercise in lesson.exercises() if exercise.returns]


def work(lesson, name, folder, path):
    """The exercise of the answer `name`, and a file of those in `path` in which that one stands for the exercise."""
    exercise_name = name.partition("__")[0]
    file = folder / lesson.work_name
    file.write_text(f"{path.read_text()}\n\n{exercise_name} = {name}\n")
    return next(e for e in lesson.exercises() if e.name == exercise_name), file


def verdict_here(exercise, file):
    """The verdict of a judge in this process, which is quicker than one of its own."""
    return Verdict(exercise.name, **judge(exercise, file))


def ids(cases):
    return [f"{lesson.number}-{name}" for lesson, name in cases]


@pytest.mark.parametrize(("lesson", "name"), RIGHT, ids=ids(RIGHT))
def test_the_reference_answer_is_accepted(lesson, name, tmp_path):
    exercise, file = work(lesson, name, tmp_path, lesson.answer_path)
    verdict = verdict_on(lesson, file, exercise)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("lesson", "name"), WRONG, ids=ids(WRONG))
def test_a_known_mistake_is_named(lesson, name, tmp_path):
    mistake = name.split("__")[1].replace("_", " ")
    exercise, file = work(lesson, name, tmp_path, lesson.answer_path)
    if mistake in ("time", "memory"):
        verdict = verdict_on(lesson, file, replace(exercise, seconds=1) if mistake == "time" else exercise)
    else:
        verdict = verdict_here(exercise, file)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert verdict.message.endswith((".", "?"))


@pytest.mark.parametrize(("lesson", "name"), STYLED, ids=ids(STYLED))
def test_a_right_answer_in_another_style_is_accepted(lesson, name, tmp_path):
    verdict = verdict_here(*work(lesson, name, tmp_path, STYLES))
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("lesson", "exercise"), RETURNING, ids=[exercise.name for _, exercise in RETURNING])
def test_a_forgotten_return_is_answered_as_such_in_every_exercise_that_returns_something(lesson, exercise, tmp_path):
    file = tmp_path / lesson.work_name
    text = lesson.exercise_path.read_text()
    file.write_text(text.replace("raise NotImplementedError", "print('computed, but not returned')"))
    verdict = verdict_here(exercise, file)
    assert (verdict.passed, verdict.mistake) == (False, "no return")
    assert f"{exercise.name}() ends without a `return`" in verdict.message


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_exercise_has_a_reference_answer_and_a_known_mistake(lesson):
    names = {exercise.name for exercise in lesson.exercises()}
    assert {name for other, name in RIGHT if other is lesson} == names
    assert {name.partition("__")[0] for other, name in WRONG if other is lesson} == names


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_the_learner_gets_every_exercise_unwritten(lesson):
    module = load(lesson.exercise_path)
    for exercise in lesson.exercises():
        with pytest.raises(NotImplementedError):
            function = getattr(module, exercise.name)
            function(*[None] * function.__code__.co_argcount)
