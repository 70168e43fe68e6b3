"""Every reference answer is accepted; every known-wrong one is rejected for what is wrong with it."""

from dataclasses import replace
from types import FunctionType

import pytest

from lessons.catalog import lessons, load
from lessons.check import check


def answers(lesson):
    """Names of the functions in the lesson's answers: `exercise` or `exercise__mistake`."""
    names = {exercise.name for exercise in lesson.exercises()}
    module = load(lesson.answer_path)
    functions = [name for name, value in vars(module).items() if isinstance(value, FunctionType)]
    return [name for name in functions if name.partition("__")[0] in names]


pytestmark = pytest.mark.usefixtures("warm_workers")

LESSONS = list(lessons().values())
ANSWERS = [(lesson, name) for lesson in LESSONS for name in answers(lesson)]
RIGHT = [(lesson, name) for lesson, name in ANSWERS if "__" not in name]
WRONG = [(lesson, name) for lesson, name in ANSWERS if "__" in name]


def verdict_on(lesson, name, folder, **limits):
    """The verdict on a file of answers in which `name` stands for its exercise."""
    exercise_name = name.partition("__")[0]
    file = folder / lesson.work_name
    file.write_text(f"{lesson.answer_path.read_text()}\n\n{exercise_name} = {name}\n")
    exercise = next(e for e in lesson.exercises() if e.name == exercise_name)
    return check(lesson, file, replace(exercise, **limits))


def ids(cases):
    return [f"{lesson.number}-{name}" for lesson, name in cases]


@pytest.mark.parametrize(("lesson", "name"), RIGHT, ids=ids(RIGHT))
def test_the_reference_answer_is_accepted(lesson, name, tmp_path):
    verdict = verdict_on(lesson, name, tmp_path)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize(("lesson", "name"), WRONG, ids=ids(WRONG))
def test_a_known_mistake_is_named(lesson, name, tmp_path):
    mistake = name.partition("__")[2].replace("_", " ")
    limits = {"seconds": 1} if mistake == "time" else {}
    verdict = verdict_on(lesson, name, tmp_path, **limits)
    assert (verdict.passed, verdict.mistake) == (False, mistake), verdict.message
    assert verdict.message.endswith((".", "?"))


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
