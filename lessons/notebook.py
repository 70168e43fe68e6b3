"""A lesson as a notebook, by jupytext, the extra `notebooks`."""

from pathlib import Path

from lessons.lesson import Lesson
from lessons.work import new_file

INSTALL = "pip install '.[notebooks]'"  # in the folder of minidl's source


def write(lesson: Lesson, folder: Path) -> Path:
    """Put the lesson into `folder` as a notebook. ImportError without jupytext; Refused as `work.start`."""
    try:
        import jupytext
    except ImportError:
        raise ImportError(
            f"to make a notebook, install the extra `notebooks`, in the folder of minidl's source: {INSTALL}"
        ) from None
    text = jupytext.writes(jupytext.read(lesson.path), fmt="ipynb")
    return new_file(folder, f"{lesson.name}.ipynb", text)
