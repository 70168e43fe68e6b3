"""What a monitor leaves in files and on the terminal, however the program ends."""

import csv
import io
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import minidl
from minidl import data, models, nn, optim
from minidl.monitor import Monitor, terminal
from minidl.parallel import train
from minidl.streams import Lasting
from tests import terminals

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quiet(**files):
    return Monitor(terminal=False, **files)


def rows(path):
    return list(csv.DictReader(Path(path).open(newline="")))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_every_row_is_in_the_files_when_log_returns(folder):
    with quiet(csv="run.csv", jsonl="run.jsonl") as monitor:
        for step in range(3):
            monitor.log(step, loss=0.5 * step, lr=0.1)
            assert rows("run.csv")[-1] == {"step": str(step), "loss": str(0.5 * step), "lr": "0.1"}
            assert lines("run.jsonl")[-1] == {"step": step, "loss": 0.5 * step, "lr": 0.1}
    assert len(rows("run.csv")) == len(lines("run.jsonl")) == 3


def test_a_column_that_comes_later_is_empty_in_the_rows_before(folder):
    with quiet(csv="run.csv", jsonl="run.jsonl") as monitor:
        monitor.log(0, loss=1)
        monitor.log(1, loss=2, **{"test, accuracy": 0.5})
        monitor.log(2, **{"test, accuracy": 0.75})
    assert Path("run.csv").read_text() == 'step,loss,"test, accuracy"\n0,1,\n1,2,0.5\n2,,0.75\n'
    assert lines("run.jsonl")[2] == {"step": 2, "test, accuracy": 0.75}
    assert sorted(os.listdir()) == ["run.csv", "run.jsonl"]


def test_tensors_arrays_and_numbers_are_values(folder):
    with quiet(jsonl="run.jsonl") as monitor:
        loss = minidl.tensor([[1.5]], requires_grad=True)
        monitor.log(np.int64(7), a=loss, b=np.float32(0.25), c=True, d=np.array(3))
    assert lines("run.jsonl") == [{"step": 7, "a": 1.5, "b": 0.25, "c": 1, "d": 3}]


def test_a_number_that_is_not_finite_is_null_in_json_and_named_in_csv(folder):
    with quiet(csv="run.csv", jsonl="run.jsonl") as monitor:
        monitor.log(0, a=math.nan, b=math.inf, c=-math.inf)
    assert rows("run.csv") == [{"step": "0", "a": "nan", "b": "inf", "c": "-inf"}]
    assert lines("run.jsonl") == [{"step": 0, "a": None, "b": None, "c": None}]


def test_a_run_goes_on_from_the_step_that_is_logged_again(folder):
    with quiet(csv="run.csv", jsonl="run.jsonl") as monitor:
        for step in range(5):
            monitor.log(step, loss=step)
    for path in ("run.csv", "run.jsonl"):
        with open(path, "a") as file:
            file.write("5,")  # a program that was killed in the middle of a row
    with quiet(csv="run.csv", jsonl="run.jsonl", append=True) as monitor:
        monitor.log(3, loss=30, lr=1)
        monitor.log(4, loss=40)
    assert [(row["step"], row["loss"], row["lr"]) for row in rows("run.csv")] == [
        ("0", "0", ""), ("1", "1", ""), ("2", "2", ""), ("3", "30", "1"), ("4", "40", ""),
    ]  # fmt: skip
    assert [line["loss"] for line in lines("run.jsonl")] == [0, 1, 2, 30, 40]


def test_an_older_log_is_replaced_by_the_first_row_and_not_before(folder):
    with quiet(csv="run.csv") as monitor:
        monitor.log(0, loss=1)
    older = Path("run.csv").read_text()
    with pytest.raises(OSError), quiet(csv="run.csv", jsonl="nowhere/run.jsonl"):
        pass
    with quiet(csv="run.csv") as monitor:
        assert Path("run.csv").read_text() == older
        monitor.log(5, accuracy=1)
    assert Path("run.csv").read_text() == "step,accuracy\n5,1\n"


def test_files_are_made_with_the_first_row_where_their_paths_led_before(folder):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard`")
    Path("elsewhere").mkdir()
    with quiet(csv="run.csv", jsonl="run.jsonl", tensorboard="runs/a") as monitor:
        assert os.listdir() == ["elsewhere"]
        os.chdir("elsewhere")
        monitor.log(0, loss=1)
        monitor.log(1, loss=1, accuracy=1)  # a new column: the file is written anew
    assert os.listdir() == [] and sorted(os.listdir("..")) == ["elsewhere", "run.csv", "run.jsonl", "runs"]
    assert len(rows("../run.csv")) == len(lines("../run.jsonl")) == 2


@contextmanager
def files_up_to(size):
    """As on a full disk, no file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [100, 101, 105])
def test_on_a_full_disk_the_rows_before_stay_whole(folder, size):
    monitor = quiet(csv="run.csv", jsonl="run.jsonl")
    with files_up_to(size):
        with pytest.raises(OSError):
            for step in range(100):
                monitor.log(step, loss=step)
        with pytest.raises(OSError):
            monitor.log(step, loss=step, another=1)  # a new column: the file is written anew
    monitor.close()
    assert all(row["loss"] == row["step"] for row in rows("run.csv"))
    assert len(lines("run.jsonl")) in (step, step + 1) and Path("run.jsonl").read_text().endswith("}\n")
    assert sorted(os.listdir()) == ["run.csv", "run.jsonl"]


ENDLESS = """
import itertools
from minidl.monitor import Monitor
with Monitor(csv="run.csv", jsonl="run.jsonl", terminal=False) as monitor:
    for step in itertools.count():
        monitor.log(step, loss=step, **{f"new {step}": 1} if step in (3, 30) else {})
        if step == 50:
            print("ready", flush=True)
"""


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGKILL])
def test_files_are_whole_whatever_ends_the_program(folder, ended):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(ended)
    run.wait(timeout=60)
    run.stdout.close()
    steps = [int(row["step"]) for row in rows("run.csv")]
    assert steps == list(range(len(steps))) and len(steps) > 50
    assert Path("run.csv").read_bytes().endswith(b"\n") and Path("run.jsonl").read_bytes().endswith(b"}\n")
    assert len(lines("run.jsonl")) in (len(steps), len(steps) - 1)


BAD_NAMES = ("", "a\nb", "a\rb", "a\0", "\ud800", "a\u2028b", "a\x85b")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.log(-1, loss=1), ValueError, "step=-1 is not a whole number of at least 0"),
        (lambda m: m.log(0.5, loss=1), ValueError, "step=0.5"),
        (lambda m: m.log(0, loss="low"), TypeError, "loss is to be logged as a number.*not as a str"),
        (lambda m: m.log(0, loss=minidl.ones(2)), TypeError, r"not as a Tensor of shape \(2,\)"),
        (lambda m: (m.close(), m.close(), m.log(0)), RuntimeError, "the monitor is closed"),
        (lambda m: Monitor("run.csv"), ValueError, "total='run.csv' is not a whole number"),
        (lambda m: m.log(0, step=1), ValueError, '"step" is the name of the column of steps'),
        *((lambda m, n=name: m.log(0, **{n: 1}), ValueError, "cannot be logged under the name") for name in BAD_NAMES),
    ],
)
def test_what_cannot_be_logged_is_refused(folder, call, error, message):
    with quiet(csv="run.csv") as monitor, pytest.raises(error, match=message):
        call(monitor)


def test_files_that_cannot_be_gone_on_with_are_refused_and_kept(folder):
    Path("a").write_text("name,price\nx,1\n")
    for kind in ("csv", "jsonl"):
        with pytest.raises(ValueError, match="a is no log to go on with"):
            quiet(**{kind: "a"}, append=True)
    assert Path("a").read_text() == "name,price\nx,1\n"
    with pytest.raises(FileNotFoundError, match="nowhere/run.csv"):
        quiet(csv="nowhere/run.csv")
    with pytest.raises(IsADirectoryError):
        quiet(jsonl=".")


DAMAGED = {
    "csv": [
        b"step,loss\n0,1\n" + b"9" * 200_000 + b"\n",
        b"step,loss\n0," + b"1" * 200_000 + b"\n",
        b"step,loss\n0,\xff\n",
        b"step,loss\n0,\0\n",
        b"step,loss\n" + b"9" * 5000 + b",1\n",
        *(b"step,loss\n%s,1\n" % step for step in (b"inf", b"nan", b"-1", b"0.5", b"", b" 1", "³".encode())),
        b"step,loss\n\n",
        b"step,loss\n0,1,2\n",
        b"step,loss,loss\n0,1,2\n",
        b"\n",
        b"step,loss",
        bytes(range(256)),
    ],
    "jsonl": [
        *(
            b'{"step": %s}\n' % step
            for step in (b"Infinity", b"NaN", b"-1", b"0.5", b'"0"', b"true", b"null", b"9" * 5000)
        ),
        b"[" * 100_000 + b"\n",
        b'{"step": 0, "loss": "\xff"}\n',
        b'{"step": 0}\0\n',
        b"{}\n",
        b"[0]\n",
        b"\n",
        b'{"step": 0}\n\n',
        b'{"step": 0}',
    ],
}


@pytest.mark.parametrize(("kind", "content"), [(k, c) for k in DAMAGED for c in DAMAGED[k]], ids=lambda x: str(x)[:40])
def test_a_damaged_log_is_refused_by_name_in_one_sentence_and_kept(folder, kind, content):
    Path("a.log").write_bytes(content)
    with pytest.raises(ValueError, match="^a.log is no log to go on with: ") as caught:
        quiet(**{kind: "a.log"}, append=True)
    assert "\n" not in str(caught.value) and Path("a.log").read_bytes() == content


def test_rows_are_lines_whatever_the_names_of_their_values(folder):
    names = {'größe, "x"': 1, "a b": 2, "[red]": 3, "\u3000": 4}
    for step in range(2):
        with quiet(csv="run.csv", jsonl="run.jsonl", append=True) as monitor:
            monitor.log(step, **names)
    assert [row.keys() for row in rows("run.csv")] == [{"step", *names}] * 2
    assert lines("run.jsonl") == [{"step": step, **names} for step in range(2)]


# The terminal


def screen(**options):
    return Console(file=io.StringIO(), width=200, **options)


def test_a_terminal_shows_steps_their_time_the_time_left_and_values(monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    console = screen(force_terminal=True)
    with Monitor(total=10, console=console) as monitor:
        for step in range(5):
            monitor.log(step, loss=0.123456, **({"[red]": 1.0} if step == 0 else {}))
    text = console.file.getvalue()
    for shown in ("step 5/10", "2 s a step", "0:00:10 left", "loss 0.1235", "[red] 1"):
        assert shown in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_without_a_terminal_a_line_comes_now_and_then_and_none_of_a_short_run(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    console = screen()
    with Monitor(total=1000, console=console) as monitor:
        for step in range(1000):
            clock[0] = step * 0.025
            monitor.log(step, loss=step)
    assert console.file.getvalue().splitlines() == [
        "step 401/1000  25 ms a step  0:00:15 left  loss 400",
        "step 801/1000  25 ms a step  0:00:05 left  loss 800",
        "step 1000/1000  25 ms a step  loss 999",
    ]
    console = screen()
    with Monitor(console=console) as monitor:
        monitor.log(0, loss=1)
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("kind", terminals.BROKEN)
def test_a_run_goes_on_when_its_terminal_is_gone(folder, monkeypatch, kind):
    monkeypatch.setattr(terminal, "SECONDS_PER_LINE", 0)
    stream = terminals.terminal(kind)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with Monitor(jsonl="run.jsonl") as monitor:
            for step in range(3):
                monitor.log(step, loss=0)
    Lasting(stream).settle()
    assert len(lines("run.jsonl")) == 3


# TensorBoard


def events(folder):
    """The events of all files of the folder, in the format of TFRecord: length, its CRC, data, its CRC."""
    crc32c = pytest.importorskip("tensorboardX.crc32c").crc32c
    from tensorboardX.proto.event_pb2 import Event

    def checked(content, crc):
        value = crc32c(content)
        assert struct.unpack("<I", crc)[0] == ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return content

    for path in sorted(Path(folder).iterdir()):
        file = io.BytesIO(path.read_bytes())
        while length := file.read(8):
            checked(length, file.read(4))
            yield Event.FromString(checked(file.read(struct.unpack("<Q", length)[0]), file.read(4)))


def scalars(folder):
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events(folder) if e.summary.value]


def test_an_event_file_holds_the_scalars_of_each_step(folder):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard`")
    with quiet(tensorboard="runs/a") as monitor:
        monitor.log(0, loss=0.5, **{"test/accuracy": 0.25})
        assert scalars("runs/a") == [(0, {"loss": 0.5, "test/accuracy": 0.25})]
        monitor.log(1, loss=math.nan)
    first, *_, last = events("runs/a")
    assert first.file_version == "brain.Event:2" and last.wall_time >= first.wall_time > 1e9
    assert last.step == 1 and math.isnan(last.summary.value[0].simple_value)


def test_the_events_of_two_runs_are_not_mixed_unless_one_goes_on_with_the_other(folder):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard`")
    with quiet(tensorboard="a") as monitor:
        monitor.log(0, loss=1)
        monitor.log(1, loss=1)
    with pytest.raises(ValueError, match="a has the events of another run"):
        quiet(tensorboard="a")
    with quiet(tensorboard="a", append=True) as monitor:
        monitor.log(1, loss=2)
    assert [(step, v["loss"]) for step, v in scalars("a")] == [(0, 1), (1, 1), (1, 2)]
    (start,) = (e for e in events("a") if e.HasField("session_log"))  # TensorBoard drops what is there from this step
    assert start.step == 1 and start.session_log.status == start.session_log.START


def test_without_the_extra_an_error_names_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    monkeypatch.delitem(sys.modules, "minidl.monitor.tensorboard", raising=False)
    with pytest.raises(ImportError, match=r"pip install '\.\[tensorboard\]'"):
        quiet(tensorboard="a")


def test_a_monitor_is_a_callback_of_train(folder):
    train_set, test_set = data.digits()
    with quiet(csv="run.csv") as monitor:
        run = train(
            models.builder("mlp-digits"), train_set, optimizer=lambda p: optim.SGD(p, lr=0.1),
            loss=nn.CrossEntropyLoss(), batch_size=64, steps=4, evaluate=test_set, evaluate_every=2,
            callbacks=[monitor],
        )  # fmt: skip
    found = rows("run.csv")
    assert [float(row["loss"]) for row in found] == run.losses
    assert [float(row["seconds"]) for row in found] == run.step_times
    accuracies = [row["test_accuracy"] for row in found]
    assert accuracies == ["", str(run.evaluations[0].accuracy), "", str(run.evaluations[1].accuracy)]
