"""What objects show of themselves: the same wherever they are shown, within its columns, and nothing is markup."""

import io
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from minidl import models
from minidl.display import Displayed, cut, facts
from minidl.profiling import profile


class Shown(Displayed):
    def __init__(self, title, rows):
        self.title, self.rows = title, rows

    def __rich__(self):
        return facts(self.title, self.rows)


def test_an_object_is_printed_as_a_line_and_a_name_and_a_value_a_row():
    assert str(Shown("Two things", [("a", "1"), ("longer", "2 s")])) == "Two things\na       1\nlonger  2 s"
    assert str(Shown("Nothing", [])) == "Nothing"


PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), max_size=200)


@given(PRINTABLE, PRINTABLE)
@example("", "\u07eb")  # a mark without width
def test_no_line_is_longer_than_its_columns_and_no_character_is_lost(title, value):
    text = str(Shown(title, [("name", value)]))
    console = Console(width=1000)
    assert all(console.measure(line).maximum <= 80 for line in text.splitlines())
    assert "".join(text.split()) == "".join((title + "name" + value).split())


@pytest.mark.parametrize("text", ["[red]x[/red]", ":smile:", "<b> & </b>", "[/]"])
def test_what_looks_like_markup_is_text(text):
    shown = Shown(text, [(text, text)])
    assert str(shown).count(text) == 3
    html = shown._repr_html_()
    assert html.count(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) == 3
    assert html.strip().startswith("<pre") and html.strip().endswith("</pre>")


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "20"}, {"NO_COLOR": "1"}])
def test_it_is_the_same_text_wherever_it_is_printed(monkeypatch, environment):
    shown = Shown("x" * 70, [("name", "value " * 30)])
    expected = str(shown)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(shown) == expected and "\x1b" not in expected


@given(st.lists(st.integers()), st.sampled_from((2, 6)))
def test_a_long_list_is_cut_in_the_middle_with_a_count(items, most):
    shown = cut(items, most)
    if len(items) <= most:
        assert shown == items
    else:
        half = most // 2
        assert shown == [*items[:half], f"… {len(items) - most:,} more …", *items[-half:]]


def test_in_a_notebook_an_object_is_shown_whole_and_at_a_prompt_in_one_line():
    formatters = pytest.importorskip("IPython.core.formatters", reason="the extra `test`")
    model = models.builder("mlp-digits")()
    found = profile(model, model.example(4)[0], repeats=1, show=False)
    shown, _ = formatters.DisplayFormatter().format(found)
    assert shown["text/plain"] == "<Profile of Sequential: 4 rows>"
    assert all(line.strip() in shown["text/html"] for line in str(found).splitlines()[2:6])


@pytest.mark.parametrize("width", [20, 30, 200])
def test_a_rich_console_shows_all_of_it_at_its_own_width(width):
    console = Console(file=io.StringIO(), width=width)
    console.print(Shown("A title that is rather long", [("exposed communication", "value " * 9)]))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    letters = sorted("".join("".join(lines).split()))
    assert letters == sorted("Atitlethatisratherlongexposedcommunication" + "value" * 9)


def test_what_workers_import_loads_no_rich():
    code = "import sys, minidl.parallel.runtime.child; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
