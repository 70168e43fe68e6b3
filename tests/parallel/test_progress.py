"""train() shows how far it is where somebody looks, leaves a terminal as it was, and never ends because of that."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from minidl import data, models, nn, optim
from minidl.monitor import Monitor, terminal
from minidl.parallel import train
from minidl.streams import Lasting
from tests import terminals
from tests.terminals import Screen, left_on

pytestmark = pytest.mark.usefixtures("warm_workers")


def train_here(steps=30, **options):
    return train(
        lambda mesh: models.mlp((64, 16, 10), mesh=mesh), data.digits()[0], loss=nn.CrossEntropyLoss(), batch_size=16,
        optimizer=lambda parameters: optim.SGD(parameters, lr=0.1), steps=steps, **options,
    )  # fmt: skip


def run(errors, steps=30, **options):
    """Train with this as standard error."""
    with contextlib.redirect_stderr(errors):
        try:
            return train_here(steps, **options)
        finally:
            assert sys.stderr is errors


@pytest.fixture
def screen(monkeypatch):
    """A terminal, on which every step is shown."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "SECONDS_PER_LOOK", 0.0)
    return Screen()


def is_clean(screen, *lines):
    """Whether these lines stand there and nothing else, and the cursor is seen at the beginning of the next."""
    return left_on(screen.getvalue()) == ([*lines], True)


def test_a_terminal_shows_step_loss_and_time_in_one_line_and_nothing_is_left_of_it(screen):
    losses = run(screen).losses
    written = screen.getvalue()
    assert re.search(rf"step 30/30  [0-9.]+ [mµ]?s a step  loss {losses[-1]:.4g}", written) and "left  loss" in written
    assert is_clean(screen)


@pytest.mark.parametrize("progress", [None, False])
def test_where_no_terminal_is_nothing_is_shown_unless_asked_for(monkeypatch, progress):
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(pipe := io.StringIO(), progress=progress)
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(("steps", "shown"), [(30, range(3, 31, 3)), (4, range(1, 5)), (1, [1])])
def test_a_pipe_gets_ten_plain_lines_when_asked_for(monkeypatch, steps, shown):
    monkeypatch.setenv("FORCE_COLOR", "1")
    losses = run(pipe := io.StringIO(), steps, progress=True).losses
    lines = pipe.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/{steps}" for step in shown]
    assert [line.split()[-1] for line in lines] == [f"{losses[step - 1]:.4g}" for step in shown]


def test_a_terminal_shows_nothing_when_that_is_asked_for(screen):
    run(screen, progress=False)
    assert screen.getvalue() == ""


def test_a_dumb_terminal_gets_no_controls(screen, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    run(screen)
    assert screen.getvalue() == ""
    run(screen, progress=True)
    assert len(screen.getvalue().splitlines()) == 10 and "\x1b" not in screen.getvalue()


def fail(record):
    if record.step == 2:
        raise ZeroDivisionError


def press(record):
    if record.step == 2:
        signal.raise_signal(signal.SIGINT)


def press_twice(record):
    press(record)
    press(record)


@pytest.mark.parametrize(
    ("callback", "raised"), [(fail, ZeroDivisionError), (press, KeyboardInterrupt), (press_twice, KeyboardInterrupt)]
)
def test_whatever_ends_a_training_the_terminal_is_left_clean(screen, callback, raised):
    with pytest.raises(raised):
        run(screen, 1_000_000, callbacks=[callback])
    assert "step 1/1000000" in screen.getvalue() and is_clean(screen)


def test_a_resumed_training_shows_its_steps_in_all(screen, tmp_path):
    run(screen, 10, save=tmp_path / "x", progress=False)
    run(screen, 12, resume=tmp_path / "x")
    assert re.findall("step [0-9]+/[0-9]+", screen.getvalue())[0] == "step 11/12"


def test_what_a_callback_prints_stands_above_the_line(screen, monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen)
    run(screen, 3, callbacks=[lambda record: print("after", record.step)])
    assert is_clean(screen, "after 0", "after 1", "after 2") and sys.stdout is screen


def test_what_a_callback_prints_into_a_file_stays_there(screen, capsys):
    run(screen, 3, callbacks=[lambda record: print("after", record.step)])
    assert capsys.readouterr().out == "after 0\nafter 1\nafter 2\n" and is_clean(screen)


def test_a_training_in_the_callback_of_another_shows_nothing(screen):
    run(screen, 3, callbacks=[lambda record: train_here(2) if record.step == 1 else None])
    assert "/3" in screen.getvalue() and "/2" not in screen.getvalue() and is_clean(screen)


def test_beside_a_monitor_a_training_shows_nothing(screen):
    with Monitor(total=3, console=Console(file=screen)) as monitor, contextlib.redirect_stderr(screen):
        train_here(3, callbacks=[monitor])
    shown = re.findall("step 3/3.*", screen.getvalue())
    assert shown and all("seconds" in line for line in shown) and left_on(screen.getvalue())[1]


def test_in_a_display_of_the_users_own_a_training_shows_nothing_or_plain_lines_above_it(screen):
    with contextlib.redirect_stderr(screen), Progress(console=Console(file=screen), transient=True) as mine:
        mine.add_task("mine")
        train_here(3)
        assert "step" not in screen.getvalue()
        train_here(3, progress=True)
    assert [line[:9] for line in left_on(screen.getvalue())[0]] == ["step 1/3 ", "step 2/3 ", "step 3/3 "]


def test_two_monitors_may_share_a_console(screen):
    console = Console(file=screen)
    with (
        contextlib.redirect_stderr(screen),
        Monitor(total=3, console=console) as first,
        Monitor(total=3, console=console) as second,
    ):
        for step in range(3):
            first.log(step, loss=1)
            second.log(step, accuracy=1)
    assert "loss" in screen.getvalue() and "accuracy" not in screen.getvalue() and left_on(screen.getvalue())[1]


@pytest.mark.parametrize("kind", terminals.BROKEN)
@pytest.mark.parametrize("progress", [None, True])
def test_a_training_goes_on_when_nobody_can_see_it(kind, progress):
    stream = terminals.terminal(kind)
    assert len(run(stream, 4, progress=progress).losses) == 4
    Lasting(stream).settle()


NOTEBOOK = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

class ZMQInteractiveShell(InteractiveShell):
    '''By this name rich knows a notebook.'''

shell = ZMQInteractiveShell.instance()
with capture_output() as captured:
    done = shell.run_cell(sys.argv[1])
done.raise_error()
print(json.dumps([[output.data, output.update] for output in captured.outputs]))
print(json.dumps(captured.stderr))
"""
CELL = """
from minidl import data, models, nn, optim
from minidl.monitor import terminal
from minidl.parallel import train
from minidl.profiling import profile
terminal.SECONDS_PER_LOOK = 0.0
run = train(models.builder("mlp-digits"), data.digits()[0], optimizer=lambda p: optim.SGD(p, lr=0.1),
            loss=nn.CrossEntropyLoss(), batch_size=64, steps=5)
model = models.builder("mlp-digits")()
profile(model, model.example(4)[0], repeats=1, show=False)
"""


def test_a_notebook_shows_one_line_that_changes_and_stays():
    pytest.importorskip("IPython", reason="the extra `test`")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", NOTEBOOK, CELL]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    outputs, errors = map(json.loads, found.stdout.splitlines())
    assert [update for _, update in outputs] == [False, *[True] * (len(outputs) - 1)] and len(outputs) >= 2
    last = outputs[-1][0]
    assert re.fullmatch(r"step 5/5  [0-9.]+ [mµ]?s a step  loss [0-9.]+", last["text/plain"]) and errors == ""
    assert last["text/html"] == f'<progress value="5" max="5"></progress> {last["text/plain"]}'
