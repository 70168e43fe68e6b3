"""Which lessons there are, and where their files lie."""

import argparse
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from lessons.percent import read_cells

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Lesson:
    """Lesson `number`; its files are called `name`, as in `01_autograd`.

    minutes: to read and run it. exercise_minutes: for its exercises, on top.
    """

    number: int
    name: str
    title: str
    minutes: int
    exercise_minutes: int

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @property
    def exercise_path(self) -> Path:
        """The exercises as the learner gets them."""
        return FOLDER / "exercises" / f"{self.name}.py"

    @property
    def check_path(self) -> Path:
        return FOLDER / "checks" / f"{self.name}.py"

    @property
    def answer_path(self) -> Path:
        return FOLDER / "checks" / "answers" / f"{self.name}.py"

    @property
    def work_name(self) -> str:
        """The name of the learner's own copy of the exercises."""
        return f"lesson_{self.name}.py"

    def exercises(self) -> list:
        """The Exercises of this lesson, in the order of the text."""
        return load(self.check_path).EXERCISES


def load(path: Path) -> ModuleType:
    """The module in the file `path`, whose name need not be an identifier."""
    name = f"lesson_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def lessons() -> dict[int, Lesson]:
    """Number -> Lesson, in order; title and times are read from the first cell of each file."""
    return {int(path.name[:2]): _read(path) for path in sorted(FOLDER.glob("[0-9][0-9]_*.py"))}


def _read(path: Path) -> Lesson:
    head = read_cells(path)[0].source
    title = re.match(r"# (?:\d+\. )?(.+)", head)[1]
    reading, exercises = re.search(r"About (\d+) minutes to read and run, and (\d+) for the exercises", head).groups()
    return Lesson(int(path.name[:2]), path.stem, title, int(reading), int(exercises))


def lesson(number: str) -> Lesson:
    """The type of an argument that is the number of a lesson; the error names those there are."""
    known = lessons()
    if not number.isdecimal() or int(number) not in known:
        raise argparse.ArgumentTypeError(f"there is no lesson {number!r}: choose one of {', '.join(map(str, known))}")
    return known[int(number)]
