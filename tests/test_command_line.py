"""python -m minidl: what it prints, writes and leaves behind, and how it answers what cannot be done."""

import contextlib
import csv
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.__main__ import main
from minidl.bench import host, training_steps, two_workers
from minidl.commands import bench_parallel
from minidl.commands.arguments import Parser, Refused, check_writable
from minidl.commands.driver import Outcome, answer
from minidl.commands.optimizers import OPTIMIZERS
from minidl.commands.output import write_json
from minidl.monitor.log_files import CSVFile
from minidl.parallel import Plan, Run, WorkerError
from minidl.parallel.result import Evaluation
from minidl.plots import timeline_figure
from minidl.trace import Trace
from tests.leftovers import children
from tests.terminals import BROKEN, CODES, left_on, printed_on

pytestmark = pytest.mark.usefixtures("warm_workers")

COMMANDS = ([], ["train"], ["profile"], ["bench"], ["bench", "parallel"], ["bench", "train"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["bench"], "required: BENCHMARK"),
        (["bench", "dance"], "invalid choice: 'dance'"),
        (["bench", "parallel", "--rounds", "0"], "--rounds: '0' is not a whole number of at least 1"),
        (["bench", "parallel", "--json", "nowhere/x"], "cannot write nowhere/x"),
        (["bench", "train", "--workloads", "W9"], "invalid choice: 'W9'"),
        (["bench", "train", "--threads", "0"], "--threads: '0' is not a whole number of at least 1"),
        (["bench", "train", "--vs", "jax"], "invalid choice: 'jax'"),
        (["train", "--bogus"], "--bogus"),
        (
            ["train", "--model", "gpt"],
            "no model 'gpt': neither a function FILE.py:BUILD nor one of mlp-digits, cnn-dig",
        ),
        (["train", "--model", "lenet"], "lenet is trained on mnist: name its --folder"),
        (
            ["train", "--model", "lenet", "--folder", "."],
            "put it there or pass --download",
        ),
        (["train", "--folder", "."], "mlp-digits is trained on what comes with minidl"),
        (
            ["train", "--batch-size", "2000", "--drop-last"],
            "drop_last leaves nothing of 1437 samples",
        ),
        (["train", "--batch-size", "many"], "'many' is not a whole number"),
        (["train", "--steps", "-1"], "'-1' is not a whole number"),
        (["train", "--steps", "1", "--epochs", "1"], "not allowed with"),
        (["train", "--lr", "nan"], "'nan' is not a positive number"),
        (["train", "--lr", "fast"], "'fast' is not a positive number"),
        (["train", "--seed", "-1"], "'-1' is not a whole number of at least 0"),
        (["train", "--dtype", "float8"], "'float32', 'float64'"),
        (["train", "--schedule", "best"], "'naive', 'gpipe', '1f1b'"),
        (["train", "--sharding", "all"], "--sharding: invalid choice: 'all'"),
        (["train", "--bucket-mb", "0"], "--bucket-mb: '0' is not a positive number"),
        (["train", "--tensor", "1.5"], "--tensor: '1.5' is not a whole number of at least 1"),
        (["train", "--data", "3"], "batch_size 64 is not divisible by data=3 × micro_batches=1 (= 3)"),
        (["train", "--pipeline", "11"], "pipeline=11 needs at least 11 blocks"),
        (["train", "--tensor", "3"], "128 is not divisible by tensor=3"),
        (["train", "--json", "nowhere/x"], "cannot write nowhere/x: No such file or directory"),
        (["profile", "gpt"], "argument MODEL: no model 'gpt'"),
        (["profile", "gpt3-175b", "--batch", "1"], "this machine has"),
        (["train", "--log", "nowhere/x.csv"], "cannot write nowhere/x.csv"),
        (["train", "--save", "."], "cannot write .: Is a directory"),
        (["train", "--trace", "x", "--save", "x"], "x is given twice"),
        (["train", "--timeline", "x.pdf"], "argument --timeline: 'x.pdf' does not end in .png or .svg"),
        (["train", "--timeline", "nowhere/x.png"], "cannot write nowhere/x.png: No such file or directory"),
        (["train", "--save-every", "5"], "--save-every needs a file to write to: --save, or --resume"),
        (["train", "--save-every", "0", "--save", "x"], "--save-every: '0' is not a whole number of at least 1"),
        (["train", "--resume", "nowhere"], "nowhere"),
        *((["train", "--resume", "nowhere", "--log", log], "nowhere") for log in ("a.csv", "a.jsonl")),
    ],
)
def test_what_cannot_be_done_gets_one_line_and_exit_code_2(folder, capsys, arguments, reason):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("minidl: ") and captured.err.count("\n") == 1
    assert reason in captured.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_every_option_of_every_command(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m minidl {' '.join(command)}".rstrip())
    named = {
        "": ["train", "profile", "bench", "exit code"],
        "profile": "MODEL gpt3-175b --model net.py:build --batch --depth --repeats --no-time --json".split(),
        "train": "--model net.py:build data() --folder --download --data --pipeline --tensor --micro-batches "
        "--schedule --bucket-mb --sharding --batch-size --drop-last --epochs --steps --lr --optimizer --seed --dtype "
        "--save --save-every --resume --trace --timeline --log --json".split(),
        "bench": ["parallel", "train"],
        "bench train": ["--vs", "--workloads", "--threads", "--rounds", "--json", "W6"],
        "bench parallel": ["--rounds", "--json"],
    }[" ".join(command)]
    assert [name for name in named if name not in text] == []


def test_the_documented_run_reaches_95_percent(folder, capsys):
    assert main(["train", "--json", "result.json", "--save", "digits.safetensors", "--trace", "trace.json"]) == 0
    text = capsys.readouterr().out
    for name in ("mlp-digits", "loss", "test accuracy", "step time", "samples/s", "idle", "exposed communication"):
        assert name in text
    assert "bubble" not in text and "tokens" not in text and "workers share" not in text

    result = json.loads(Path("result.json").read_text())
    assert set(result) == {
        "model", "plan", "workers", "batch_size", "first_step", "steps", "optimizer", "lr", "seed", "dtype", "device",
        "final_loss", "test_loss", "test_accuracy", "step_seconds", "samples_per_second", "tokens_per_second",
        "bubble_fraction", "exposed_communication_seconds", "losses",
    }  # fmt: skip
    assert result["test_accuracy"] >= 0.95
    assert result["samples_per_second"] == pytest.approx(64 / result["step_seconds"])
    assert result["tokens_per_second"] is None
    assert Plan(**result["plan"]) == Plan() and result["workers"] == 1
    assert len(result["losses"]) == result["steps"] == 20 * 23
    assert result["losses"][-1] == result["final_loss"]

    model = models.builder("mlp-digits")()
    model.load_state_dict(minidl.load("digits.safetensors"))
    x, y = data.digits()[1][np.arange(360)]
    assert (model(minidl.tensor(x)).numpy().argmax(1) == y).mean() == result["test_accuracy"]
    assert Trace.load("trace.json").exposed_communication == pytest.approx(result["exposed_communication_seconds"])


def test_the_timeline_is_that_of_the_last_step(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr("minidl.plots.timeline_figure", lambda traces: drawn.extend(traces) or timeline_figure(traces))
    assert main(["train", "--steps", "3", "--data", "2", "--timeline", "step.png"]) == 0
    ((title, trace),) = drawn
    assert title.startswith("mlp-digits · data 2: step 2, measured, ")
    assert {event.step for event in trace.events} == {2} and trace.ranks == [0, 1]
    assert Path("step.png").read_bytes().startswith(b"\x89PNG")


def test_every_option_of_train_reaches_the_run(folder):
    """A plan changes nothing but the time; each other option does change the losses."""

    def losses(*arguments):
        assert main(["train", "--steps", "3", "--json", "result.json", *arguments]) == 0
        return json.loads(Path("result.json").read_text())["losses"]

    plain = losses()
    for plan in (
        ["--data", "2", "--micro-batches", "2"],
        ["--pipeline", "2", "--schedule", "gpipe"],
        ["--tensor", "2"],
    ):
        assert losses(*plan) == pytest.approx(plain, rel=1e-5)
    others = [
        losses(*option.split())
        for option in ("--model cnn-digits", "--batch-size 32", "--optimizer adam", "--optimizer adamw", "--lr 0.01",
                       "--seed 1", "--dtype float64", "--batch-size 1000 --drop-last")
    ]  # fmt: skip
    assert all(other[2] != plain[2] for other in others)


def test_every_field_of_a_plan_is_an_option(folder):
    options = "--pipeline 2 --tensor 2 --micro-batches 2 --schedule gpipe --chunks 2"
    options += " --recompute full --bucket-mb 2.5 --sharding optimizer"
    assert main(["train", "--steps", "1", "--json", "result.json", "--data", "2", *options.split()]) == 0
    found = json.loads(Path("result.json").read_text())["plan"]
    assert found == asdict(Plan()) | {
        "data": 2, "pipeline": 2, "tensor": 2, "micro_batches": 2, "schedule": "gpipe", "chunks": 2,
        "recompute": "full", "bucket_mb": 2.5, "sharding": "optimizer",
    }  # fmt: skip
    others = ["context", "expert", "sequence_parallel", "precision"]  # which digits have not: `predict` has them
    assert [name for name, default in asdict(Plan()).items() if found[name] == default] == others


def test_more_workers_than_cores_are_said_once_in_one_sentence(folder, capsys, monkeypatch):
    for there, sentences in ((1, 1), (2, 0)):
        monkeypatch.setattr("minidl.commands.train.cores", lambda there=there: there)
        assert main(["train", "--steps", "1", "--data", "2"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert printed.count("2 workers share 1 core: they take turns, and more of them are no faster") == sentences
        assert "bubble" in printed and "idle" not in printed


@pytest.mark.parametrize("path", ["log.csv", "log.jsonl"])
def test_a_log_has_a_row_for_every_step(folder, path):
    assert main(["train", "--steps", "3", "--log", path, "--json", "result.json"]) == 0
    text = Path(path).read_text().splitlines()
    found = csv.DictReader(text) if path.endswith("csv") else map(json.loads, text)
    assert [float(row["loss"]) for row in found] == json.loads(Path("result.json").read_text())["losses"]


def test_a_log_that_fills_the_disk_ends_no_training(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "log.csv")

    monkeypatch.setattr(CSVFile, "write", full)
    assert main(["train", "--steps", "3", "--log", "log.csv", "--save", "a.safetensors"]) == 0
    assert capsys.readouterr().err.count("warning: no log from step 0 on: [Errno 28] No space left") == 1
    assert Path("a.safetensors").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_brings_the_loss_down_with_the_options_it_has_here(folder, optimizer):
    assert main(["train", "--optimizer", optimizer, "--steps", "40", "--json", "result.json"]) == 0
    losses = json.loads(Path("result.json").read_text())["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_every_optimizer_can_be_chosen():
    classes = {cls for cls in vars(optim).values() if isinstance(cls, type) and issubclass(cls, optim.Optimizer)}
    assert {cls.__name__.lower() for cls in classes - {optim.Optimizer}} == OPTIMIZERS.keys()


def test_a_model_without_labels_has_a_test_loss_and_no_accuracy(folder, capsys):
    arguments = ["--model", "vae-digits", "--optimizer", "adam", "--epochs", "5", "--json", "result.json"]
    assert main(["train", *arguments]) == 0
    text = capsys.readouterr().out
    assert "test loss" in text and "accuracy" not in text
    result = json.loads(Path("result.json").read_text())
    assert result["test_accuracy"] is None and result["test_loss"] < 27  # nats an image


def test_a_language_model_learns_which_letters_are_frequent_within_a_few_steps(folder):
    arguments = ["--optimizer", "adamw", "--batch-size", "8", "--steps", "12", "--json", "result.json"]
    assert main(["train", "--model", "gpt-tiny", *arguments]) == 0
    result = json.loads(Path("result.json").read_text())
    assert result["losses"][0] > 5 and result["test_loss"] < 3.5  # ln 256 is 5.5
    assert result["test_accuracy"] > 0.1  # one letter in six is a space


def test_a_run_that_diverges_says_so_and_writes_null(folder, capsys):
    assert main(["train", "--lr", "1e30", "--steps", "3", "--json", "result.json"]) == 1
    assert "try a smaller --lr" in capsys.readouterr().out
    assert json.loads(Path("result.json").read_text())["final_loss"] is None


def test_a_worker_that_fails_gives_exit_code_1_and_what_it_said(folder, capsys, monkeypatch):
    def fail(chosen, console):
        raise WorkerError("rank 1 of 2 was killed by SIGKILL", 1)

    monkeypatch.setattr("minidl.commands.train.run", fail)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "minidl: rank 1 of 2 was killed by SIGKILL\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "x.json"), 2, "x.json: No space left on device"),
        (TypeError("a\nb"), 2, "a b"),
        (ValueError(), 2, "ValueError"),
        (RuntimeError("the process of ours W9 ended"), 1, "the process of ours W9 ended"),
        (MemoryError(), 1, "MemoryError"),
        (ValueError("no file \udcff"), 2, "no file ?"),
    ],
)
def test_an_error_of_the_run_is_one_line_and_an_exit_code(folder, capsys, monkeypatch, error, code, said):
    def fail(chosen, console):
        raise error

    monkeypatch.setattr("minidl.commands.train.run", fail)
    assert main(["train"]) == code
    assert capsys.readouterr().err == f"minidl: {said}\n"


# What is kept, whatever becomes of the terminal


def command(outcome):
    """`answer`'s second argument: a command line with nothing to choose, which gives this outcome."""
    made = Parser("made up")
    made.set_defaults(run=lambda chosen, console: outcome)
    return lambda: made


def test_all_files_are_written_before_anything_is_printed(folder, capsys):
    def show(console):
        console.print(sorted(path.name for path in folder.iterdir()))
        raise KeyboardInterrupt

    made = Outcome([(Path("a"), {"x": math.nan}), (None, {}), (Path("b"), lambda path: path.write_text("b"))], show)
    assert answer("made up", command(made), []) == 130
    assert capsys.readouterr() == ("['a', 'b']\n", "\nmade up: ended with Ctrl-C\n")
    assert json.loads(Path("a").read_text()) == {"x": None}


def test_a_file_that_cannot_be_written_in_the_end_costs_no_other_and_no_table(folder, capsys):
    def fail(error):
        def write(path):
            raise error

        return write

    made = [
        (Path("a"), fail(OSError(28, "No space left on device", "a"))),
        (Path("b"), fail(ZeroDivisionError("of a drawing"))),
        (Path("c"), fail(BrokenPipeError())),  # a pipe whose reader had enough
        (Path("d"), {"kept": True}),
    ]
    assert answer("made up", command(Outcome(made, lambda console: console.print("the table"))), []) == 1
    out, err = capsys.readouterr()
    assert out == "the table\n" and json.loads(Path("d").read_text()) == {"kept": True}
    assert err == "made up: cannot write a: No space left on device\nmade up: cannot write b: of a drawing\n"


RUNS = {  # what makes each command fast
    "train": (["train", "--steps", "1"], {"minidl.commands.train.train": lambda *_, **__: trained()}),
    "profile": (["profile", "mlp-digits", "--no-time"], {}),
    "bench parallel": (["bench", "parallel"], {"minidl.bench.two_workers.measure": lambda *_: PARALLEL}),
    "bench train": (
        ["bench", "train"],
        {
            "minidl.bench.training_steps.measure": lambda *_: [training_steps.Row("W5", 1, 1.0)],
            "minidl.bench.training_steps.start_up": lambda: training_steps.StartUp(1.0, 2.0),
            "minidl.bench.training_steps.blas": list,
        },
    ),
}
PARALLEL = two_workers.Results([], [two_workers.Speedup("SGD", 1, 1, 1)], two_workers.Collectives(1, 1, 1, 1), [])


@cache
def trained():
    """A run of one step."""
    train_set, test_set = data.digits()
    return minidl.parallel.train(
        models.builder("mlp-digits"), train_set, optimizer=lambda p: optim.SGD(p, lr=0.1), loss=nn.CrossEntropyLoss(),
        batch_size=64, steps=1, evaluate=test_set,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
@pytest.mark.parametrize("command", RUNS)
def test_every_command_keeps_its_work_whatever_becomes_of_the_terminal(folder, capsys, monkeypatch, command, kind):
    arguments, quick = RUNS[command]
    for name, instead in quick.items():
        monkeypatch.setattr(name, instead)
    assert printed_on(monkeypatch, kind, main, [*arguments, "--json", "result.json"]) == CODES.get(kind, 0)
    assert json.loads(Path("result.json").read_text())
    said = "minidl: cannot write the output: No space left on device\n" if kind == "full disk" else ""
    assert re.sub(r"\d+ of \d+: .*\n", "", capsys.readouterr().err) == said  # without the lines of progress


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
def test_help_needs_no_terminal_that_takes_it(capsys, monkeypatch, kind):
    with pytest.raises(SystemExit) as ended:
        printed_on(monkeypatch, kind, main, ["bench", "train", "--help"])
    assert ended.value.code == CODES.get(kind, 0)


def test_python_itself_ends_quietly_where_nothing_can_be_printed(folder):
    """Whole processes: what Python still holds at its exit must not fail either."""
    profile = f"exec {sys.executable} -m minidl profile mlp-digits --no-time --json"
    runs = {
        f"{profile} a >&- 2>&-": (0, ""),
        f"({profile} b; echo $? >&2) | true": (0, "0\n"),
        **({f"{profile} c >/dev/full 2>/dev/full": (1, "")} if os.path.exists("/dev/full") else {}),
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    started = [
        subprocess.Popen(["sh", "-c", line.replace("exec", "", line.count("|"))], stderr=subprocess.PIPE, text=True,
                         env=environment) for line in runs
    ]  # fmt: skip
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [(code, said) for said, code in ended] == list(runs.values())
    assert len(list(folder.iterdir())) == len(runs)


@pytest.mark.parametrize("columns", ["0", "1", "20", "80", "nonsense"])
def test_no_word_is_lost_on_a_narrow_terminal(folder, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(two_workers, "measure", lambda *_: PARALLEL)
    assert main(["bench", "parallel"]) == 0
    said = capsys.readouterr().out.split()
    for words in ("two workers, SGD", "all-reduce : memcpy, 1 MiB", "1 s : 1 s a step"):
        assert [word for word in words.split() if word not in said] == []


def test_control_c_ends_the_run_with_one_line_and_all_there_is_in_its_files(folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TERM": "xterm"}
    files = ["--save", "x.safetensors", "--trace", "trace.json", "--json", "result.json", "--log", "log.csv"]
    command = [sys.executable, "-m", "minidl", "train", "--data", "2", "--steps", "100000000", *files]
    screen, terminal = os.openpty()
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    try:
        shown = b""
        while b"loss" not in shown:  # the first report of a worker
            shown += os.read(screen, 4096)
        workers = children(run.pid)
        run.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # no process has the terminal any more
            while more := os.read(screen, 4096):
                shown += more
        printed, _ = run.communicate(timeout=60)
    finally:
        run.kill()
        os.close(screen)
    result = json.loads(Path("result.json").read_text())
    done = len(result["losses"])
    line = (
        f"ended with Ctrl-C after step {done} of 100000000; "
        "what there is is in x.safetensors, trace.json, result.json; "
        "go on with the same options and --resume x.safetensors"
    )
    left, clean = left_on(shown.decode())
    assert (run.returncode, printed, clean) == (130, b"", True)
    assert [line for line in left if line] == [f"minidl: {line}"]
    assert done == result["steps"] > 0 == result["first_step"] and result["test_loss"] is None
    assert len(Path("log.csv").read_text().splitlines()) == done + 1
    assert max(event.step for event in Trace.load("trace.json").events) == done - 1
    more = ["--data", "2", "--steps", str(done + 1), "--resume", "x.safetensors", "--json", "result.json"]
    assert main(["train", *more]) == 0
    assert json.loads(Path("result.json").read_text())["first_step"] == done
    assert minidl.load("x.safetensors")["step"] == done + 1
    assert len(workers) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_run_is_resumed_to_the_losses_of_one_that_was_not_interrupted(folder, capsys):
    def losses(*arguments, plan=("--data", "2")):
        assert main(["train", *plan, "--optimizer", "adam", "--json", "result.json", *arguments]) == 0
        return json.loads(Path("result.json").read_text())["losses"]

    whole = losses("--steps", "9")
    saved = ["--save", "run.safetensors", "--save-every", "4", "--log", "log.csv"]
    assert losses("--steps", "6", *saved) == whole[:6]
    again = ["--resume", "run.safetensors", "--save-every", "4", "--log", "log.csv"]
    assert losses("--steps", "9", *again) == whole[6:]
    assert [float(row["loss"]) for row in csv.DictReader(Path("log.csv").read_text().splitlines())] == whole
    models.builder("mlp-digits")().load_state_dict(minidl.load("run.safetensors")["model"])
    more = losses("--steps", "11", "--resume", "run.safetensors", "--save", "other", plan=["--pipeline", "2"])
    assert more == pytest.approx(losses("--steps", "11")[9:], rel=1e-5)

    capsys.readouterr()
    for arguments, reason in (
        (["--steps", "12", "--seed", "1"], "run.safetensors was written by another run: seed 0 there and 1 here"),
        (["--data", "2", "--steps", "9"], "has done 9 steps already"),
    ):
        assert main(["train", "--optimizer", "adam", "--resume", "run.safetensors", *arguments]) == 2
        assert reason in capsys.readouterr().err


def test_bare_parameters_take_the_place_of_no_checkpoint(folder, capsys):
    steps = ["--optimizer", "adam", "--steps"]
    assert main(["train", *steps, "2", "--save", "x", "--save-every", "1"]) == 0
    older = Path("x").read_bytes()
    capsys.readouterr()
    assert main(["train", *steps, "3", "--save", "x"]) == 2
    said = capsys.readouterr().err
    assert "x is a checkpoint: go on with the same options and --resume x, or save to another file" in said
    assert main(["train", *steps, "3", "--resume", "x", "--save", "y"]) == 0
    assert Path("x").read_bytes() == older and minidl.load("y")["step"] == 3
    assert main(["train", *steps, "3", "--resume", "x"]) == 0
    assert Path("x").read_bytes() == Path("y").read_bytes()
    for _ in range(2):  # parameters take the place of parameters
        assert main(["train", *steps, "1", "--save", "z"]) == 0
        models.builder("mlp-digits")().load_state_dict(minidl.load("z"))


FULL = OSError(28, "No space left on device")
SOME = {"a": np.ones(1)}


def failed(error, saved_step, state, save_error=None):
    evaluations = [Evaluation(2, 0.5, 0.9)] if isinstance(error, OSError) else []
    error.run = Run(
        plan=Plan(), program=None, batch_size=64, losses=[2.0, 1.0], step_times=[0.1, 0.1], trace=Trace([]),
        evaluations=evaluations, saved_step=saved_step, save_error=save_error, _state=state,
    )  # fmt: skip
    return error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (failed(WorkerError("rank 0 died", 0), 1, {}), 1, "died\n\nThe checkpoint after step 1 is whole: go on"),
        (failed(WorkerError("rank 0 died", 0), None, {}), 1, "rank 0 died\n"),
        (failed(FULL, 1, SOME, FULL), 1, "minidl: cannot write x y: No space left on device\n"),
        (failed(KeyboardInterrupt(), None, {}), 130, "ended with Ctrl-C\n"),
        (failed(KeyboardInterrupt(), 2, SOME), 130, "in x y, a; go on with the same options and --resume 'x y'\n"),
        (failed(KeyboardInterrupt(), 1, SOME, FULL), 130, "cannot write x y: No space left on device\n\nminidl: "),
        (failed(KeyboardInterrupt(), 1, SOME, FULL), 130, "after step 2 of 9; what there is is in a\n"),
        (failed(OSError("no process to be had"), None, {}), 2, "minidl: no process to be had\n"),
    ],
)
def test_what_there_is_of_a_run_that_ended_early_is_written_and_named(folder, capsys, monkeypatch, error, code, said):
    def end(*arguments, **options):
        raise error

    monkeypatch.setattr("minidl.commands.train.train", end)
    arguments = ["--steps", "9", "--save", "x y", "--save-every", "1", "--json", "a"]
    assert main(["train", *arguments]) == code
    assert said in capsys.readouterr().err
    assert Path("a").exists() == bool(error.run.state_dict())


@pytest.mark.parametrize("time", [[], ["--no-time"]])
def test_profile_prints_a_table_and_writes_it(folder, capsys, time):
    assert main(["profile", "mlp-digits", "--batch", "2", "--repeats", "1", "--json", "profile.json", *time]) == 0
    text = capsys.readouterr().out
    assert "mlp-digits, 2 samples" in text and "total Sequential" in text
    result = json.loads(Path("profile.json").read_text())
    assert (result["model"], result["batch"], result["total"]["parameters"]) == ("mlp-digits", 2, 9610)
    assert (result["total"]["forward_seconds"] is None) == bool(time)


def test_a_model_too_large_to_be_measured_is_refused_with_what_it_needs_and_what_there_is(folder, capsys, monkeypatch):
    monkeypatch.setattr("minidl.commands.profile.memory_bytes", lambda: 50_000)
    assert main(["profile", "mlp-digits", "--batch", "2"]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"mlp-digits needs about [0-9.]+ kB, this machine has 50 kB: a smaller --batch, or --no-time", said
    )


def test_bench_parallel_prints_ratios_and_writes_them(folder, capsys, monkeypatch):
    small = {what: replace(case, steps=2, batch_size=2) for what, case in two_workers.COMPARED.items()}
    monkeypatch.setattr(two_workers, "COMPARED", small)
    monkeypatch.setattr(two_workers, "BLOCKS", 3)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert main(["bench", "parallel", "--rounds", "1", "--json", "bench.json"]) == 0
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    text = capsys.readouterr().out
    for name in (
        "two workers, SGD with momentum",
        "unsharded",
        "all-reduce : memcpy",
        "barrier",
        "trace : step",
        "BLAS",
    ):
        assert name in text

    result = json.loads(Path("bench.json").read_text())
    assert set(result) == {
        "benchmark", "machine", "oversubscribed", "rounds", "targets", "speedups", "collectives", "traces",
    }  # fmt: skip
    assert set(result["machine"]) == {"processor", "cores", "load", "python", "numpy", "blas"}
    assert [library["threads"] for library in result["machine"]["blas"]] == [1]
    assert set(result["collectives"]) == {"all_reduce_seconds", "memcpy_seconds", "ratio", "barrier_seconds"}
    for trace in result["traces"]:
        assert set(trace) == {"model", "events_per_step", "event_seconds", "step_seconds", "share"}
        assert 0 < trace["share"] < 1 and trace["events_per_step"] >= 5
    assert [speedup["what"] for speedup in result["speedups"]] == list(two_workers.COMPARED)
    for speedup in result["speedups"]:
        assert set(speedup) == {"what", "one_worker_seconds", "two_workers_seconds", "ratio"}
        assert speedup["ratio"] == pytest.approx(speedup["one_worker_seconds"] / speedup["two_workers_seconds"])


@pytest.mark.parametrize("other", [None, pytest.param("torch", marks=pytest.mark.slow)])
def test_bench_train_measures_each_side_and_writes_the_rows(folder, other, capsys, monkeypatch):
    if other:
        pytest.importorskip(other, reason="to compare with PyTorch, it must be installed")
    monkeypatch.setattr(training_steps, "BLOCK_SECONDS", 0.01)
    monkeypatch.setattr(training_steps, "STARTS", 1)
    monkeypatch.setenv("COLUMNS", "120")
    versus = ["--vs", other] if other else []
    chosen = ["--workloads", "W5", "--threads", "1", "--rounds", "1", "--json", "bench.json"]
    assert main(["bench", "train", *versus, *chosen]) == 0
    text = capsys.readouterr().out
    assert "W5" in text and "the second step of W1" in text

    result = json.loads(Path("bench.json").read_text())
    assert set(result) == {"benchmark", "machine", "rounds", "targets", "memory_targets", "rows", "start_up"}
    (row,) = result["rows"]
    assert (row["workload"], row["threads"]) == ("W5", 1) and row["ours_ms"] > 0 and row["ours_peak_mb"] > 0
    if versus:
        assert row["ratio"] == pytest.approx(row["ours_ms"] / row["torch_ms"], rel=1e-6) and row["tuned_ratio"] > 0
    assert 0 < result["start_up"]["import_seconds"] < result["start_up"]["second_step_seconds"]


def test_a_side_that_dies_is_named(monkeypatch):
    with (
        training_steps.Side("ours", "W9", 1) as side,
        pytest.raises(RuntimeError, match="the process of ours W9 ended"),
    ):
        side.run(1)


def test_a_comparison_needs_pytorch(capsys, monkeypatch):
    monkeypatch.setattr(training_steps, "has_torch", lambda: False)
    assert main(["bench", "train", "--vs", "torch"]) == 2
    assert "needs PyTorch: pip install torch" in capsys.readouterr().err


def test_bench_says_when_the_machine_cannot_answer(capsys, monkeypatch):
    found = two_workers.Results([], [two_workers.Speedup("SGD", 1, 1, 1)], two_workers.Collectives(1, 1, 1, 1), [])
    monkeypatch.setattr(two_workers, "measure", lambda *_: found)
    monkeypatch.setattr(host, "cores", lambda: 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0, 0))
    assert main(["bench", "parallel"]) == 0
    text = capsys.readouterr().out
    assert "Fewer than 2 cores" in text and "Load average 1.5" in text
    assert bench_parallel.document(host.machine(), 1, found)["oversubscribed"]


def test_blas_is_unrestricted_only_inside(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    with pytest.raises(KeyError), host.unrestricted_blas():
        assert "OPENBLAS_CORETYPE" not in os.environ
        raise KeyError
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell" and "OPENBLAS_L2_SIZE" not in os.environ


def test_check_writable_leaves_everything_as_it_was(folder):
    existing = folder / "existing"
    existing.write_text("kept")
    check_writable(existing, folder / "new", None)
    assert [path.name for path in folder.iterdir()] == ["existing"] and existing.read_text() == "kept"


@pytest.mark.parametrize("second", ["a", "./a", "../{folder}/a", "link", "linked/a"])
@pytest.mark.parametrize("there", [True, False])
def test_two_names_of_one_file_are_given_twice(folder, second, there):
    if there:
        Path("a").write_text("kept")
    Path("link").symlink_to("a")
    Path("linked").symlink_to(".")
    with pytest.raises(Refused, match="given twice: one file would replace the other"):
        check_writable(Path("a"), None, Path(second.format(folder=folder.name)))


def test_a_pipe_or_a_device_is_not_opened_to_find_out(folder):
    os.mkfifo("pipe")  # which would wait for a reader
    check_writable(Path("pipe"), Path("/dev/null"), Path("/dev/null"))


def test_a_link_into_a_folder_that_is_not_there_is_refused(folder):
    Path("link").symlink_to("nowhere/a")
    with pytest.raises(Refused, match="cannot write link: No such file or directory"):
        check_writable(Path("link"))


def test_json_has_no_numbers_that_json_lacks(folder):
    write_json(folder / "x", {"a": [1.5, math.nan], "b": (math.inf, {"c": -math.inf}), "d": "nan"})
    assert json.loads((folder / "x").read_text()) == {"a": [1.5, None], "b": [None, {"c": None}], "d": "nan"}
