"""Progress of commands: where it shows, and in which form."""

import sys

import pytest

from minidl.commands.progress import progress
from minidl.streams import lasting_streams
from tests.terminals import BROKEN, Screen, terminal


def say() -> None:
    with lasting_streams(), progress() as tell:
        tell("calibrating: kernels")
        tell("[data 2]", 0, 2)
        tell("tensor 2", 1, 2)


@pytest.mark.parametrize("color", [None, "1"])
def test_piped_it_is_a_plain_line_for_each_part_on_stderr(monkeypatch, capsys, color):
    if color:
        monkeypatch.setenv("FORCE_COLOR", color)
    say()
    assert capsys.readouterr() == ("", "calibrating: kernels\n1 of 2: [data 2]\n2 of 2: tensor 2\n")


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_on_a_terminal_it_is_a_bar_on_stderr_also_when_stdout_is_piped(monkeypatch, capsys, term):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", term)
    say()
    shown = screen.getvalue()
    assert "2 of 2: tensor 2" in shown and capsys.readouterr().out == ""
    assert ("\x1b[2K" in shown) == (term == "xterm")  # which clears the line of the bar; a dumb terminal cannot


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
def test_it_ends_no_run_whatever_stderr_is(monkeypatch, kind):
    stream = terminal(kind)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        say()
    if stream is not None:
        stream.close()
