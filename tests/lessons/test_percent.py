"""Reading cells: kinds, text and above all line numbers."""

import pytest

from lessons.lesson import lessons
from lessons.percent import read_cells

TEXT = """\
import os

# %% [markdown]
# # A title
#
#     indented

# %%

x = 1

y = x / 0
# %% named cell
# %% [md]
# last
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cells.py"
    path.write_text(TEXT)
    return path


def test_cells_know_their_kind_their_text_and_their_line(path):
    cells = [(cell.kind, cell.line, cell.source) for cell in read_cells(path)]
    assert cells == [
        ("code", 1, "import os"),
        ("markdown", 4, "# A title\n\n    indented"),
        ("code", 10, "x = 1\n\ny = x / 0"),
        ("markdown", 15, "last"),
    ]


def test_an_error_in_a_cell_has_the_line_number_of_the_file(path):
    code = read_cells(path)[2].compile(path)
    with pytest.raises(ZeroDivisionError) as caught:
        exec(code, {})
    assert caught.traceback[-1].lineno + 1 == 12
    assert str(caught.traceback[-1].path) == str(path)


@pytest.mark.parametrize("lesson", lessons().values(), ids=lambda lesson: lesson.name)
def test_the_code_of_a_lesson_stands_on_its_lines_of_the_file(lesson):
    lines = lesson.path.read_text().splitlines()
    for cell in read_cells(lesson.path):
        if cell.kind == "code":
            source = cell.source.splitlines()
            assert lines[cell.line - 1 : cell.line - 1 + len(source)] == source
