"""compare.py and `python -m simulator`: what they write, and how they refuse."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest

from minidl import models
from minidl.parallel import Plan, WorkerError
from minidl.trace import Trace
from simulator import compare as comparing
from simulator.__main__ import main
from simulator.calibrate import cache_path
from simulator.compare import Comparison, Experiment, Row, compare, experiments
from tests.simulator.hand_made import made_up
from tests.terminals import BROKEN, printed_on

pytestmark = pytest.mark.usefixtures("warm_workers")

COMPARE = sys.modules["simulator.compare"]
COMMAND = sys.modules["simulator.commands.compare"]
KEYS = {  # those of issue 1
    "model", "plan", "workers", "oversubscribed", "measured_step_seconds", "simulated_step_seconds", "measured_speedup",
    "simulated_speedup", "measured_bubble_fraction", "simulated_bubble_fraction",
    "measured_exposed_communication_seconds", "simulated_exposed_communication_seconds",
}  # fmt: skip
PLANS = (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=2), Plan(tensor=2))
TINY = (Experiment("tiny net", models.builder("mlp-digits"), PLANS, 3),)


@pytest.fixture(autouse=True)
def cached(monkeypatch):
    """A calibration in the cache; `main` may change how warnings are shown."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text(json.dumps(asdict(made_up())))
    monkeypatch.setenv("COLUMNS", "160")
    for module in (COMPARE, COMMAND):
        monkeypatch.setattr(module, "drift", lambda calibration: 1.0)


@pytest.fixture(scope="module")
def comparison(warm_workers):
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COMPARE, "ROUNDS", 1)
        patch.setattr(COMPARE, "drift", lambda calibration: 1.0)
        result = compare(made_up(), lambda *progress: told.append(progress), TINY)
    assert [done for _, done, _ in told] == list(range(4)) and {total for *_, total in told} == {4}
    return result


# compare


def test_a_comparison_has_a_row_for_each_plan_with_what_was_measured_and_simulated(comparison):
    assert [row.plan for row in comparison.rows] == [str(plan) for plan in PLANS]
    assert [row.workers for row in comparison.rows] == [1, 2, 2, 2]
    cores = comparison.machine["cores"]
    for row, run, prediction in zip(comparison.rows, comparison.runs, comparison.predictions, strict=True):
        assert row.oversubscribed == (row.workers > cores) and row.model == "tiny net"
        assert row.measured_step_seconds == run.step_seconds
        assert [run.program[r] for r in range(row.workers)] == [prediction.program[r] for r in range(row.workers)]
        for name, value in asdict(row).items():
            if isinstance(value, float):
                assert math.isfinite(value) and value >= 0, name
    first = comparison.rows[0]
    assert first.measured_speedup == first.simulated_speedup == 1
    assert first.measured_exposed_communication_seconds < first.measured_step_seconds


def test_compare_json_has_the_keys_of_the_issue_and_the_traces_open_again(comparison, tmp_path):
    document = json.loads(json.dumps(comparison.as_dict()))
    assert document["machine"] == comparison.machine
    assert [Row(**row) for row in document["rows"]] == comparison.rows
    assert all(set(row) >= KEYS for row in document["rows"])
    traces = comparison.traces()
    for (name, made), kind in zip(traces.items(), ["measured", "simulated"] * len(PLANS), strict=True):
        path = tmp_path / name
        made.save(path)
        trace = Trace.load(path)
        assert trace.kind == kind and kind in name and " " not in name
        rows = json.loads(path.read_text())["traceEvents"]
        assert {row["ph"] for row in rows} == {"M", "X"}
        names = [(r["pid"], r["args"]["name"]) for r in rows if r["name"] == "process_name"]
        assert names == [(rank, f"rank {rank}") for rank in trace.ranks]


def test_errors_are_means_over_the_rows_within_the_cores_and_over_the_others(comparison):
    def row(measured, simulated, oversubscribed):
        return Row("m", "p", 1, oversubscribed, measured, simulated, 1, 1, 0, 0, 0, 0, 1)

    rows = [row(1.0, 1.1, False), row(2.0, 1.4, False), row(1.0, 1.5, True)]
    made = Comparison({}, rows, [], [])
    assert made.mean_error(False) == pytest.approx((0.1 + 0.3) / 2)
    assert made.mean_error(True) == pytest.approx(0.5)
    assert Comparison({}, rows[:2], [], []).mean_error(True) is None
    assert rows[1].error == pytest.approx(-0.3)


def test_what_is_compared_by_default_is_what_the_issue_asks_for():
    plans = [plan for experiment in experiments() for plan in experiment.plans]
    assert len(plans) >= 6 and {plan.workers for plan in plans} == {1, 2, 4}
    for axis in ("data", "pipeline", "tensor"):
        assert any(getattr(plan, axis) > 1 for plan in plans)
    for experiment in experiments():
        assert experiment.plans[0].workers == 1  # what speedups refer to
        assert all(comparing.BATCH_SIZE % (plan.data * plan.micro_batches) == 0 for plan in experiment.plans)


def test_the_command_writes_pictures_rows_and_traces_and_prints_a_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(COMPARE, "ROUNDS", 1)
    monkeypatch.setattr(COMPARE, "experiments", lambda: TINY)
    out = tmp_path / "not" / "yet"
    assert main(["compare", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for piece in (
        "tiny net",
        "pipeline 2, 1f1b, 2 micro-batches",
        "tensor 2",
        "speedup",
        "mean absolute error",
    ):
        assert piece in printed
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "compare.png").stat().st_size > 10_000
    assert b"<svg" in (out / "compare.svg").read_bytes()[:1000]
    assert len(list(out.glob("trace-*.json"))) == 2 * len(PLANS)
    assert len(json.loads((out / "compare.json").read_text())["rows"]) == len(PLANS)


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
def test_a_comparison_is_kept_whatever_becomes_of_the_terminal(comparison, monkeypatch, tmp_path, capsys, kind):
    out = tmp_path / "out"
    nothing = dataclasses.replace(comparison.rows[0], drift=math.nan)
    monkeypatch.setattr(
        COMMAND, "compare", lambda *_: dataclasses.replace(comparison, rows=[nothing, *comparison.rows[1:]])
    )
    monkeypatch.setattr(COMMAND.plots, "comparison_figure", fails(ZeroDivisionError("of a drawing")))
    assert printed_on(monkeypatch, kind, main, ["compare", "--out", str(out)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [f"simulator: cannot write {out}/compare{ending}: of a drawing" for ending in (".png", ".svg")]
    assert len(list(out.iterdir())) == 1 + 2 * len(PLANS)
    text = (out / "compare.json").read_text()
    assert json.loads(text)["rows"][0]["drift"] is None  # JSON has no NaN


# Help and refusals


@pytest.mark.parametrize("arguments", [[], ["compare"]])
def test_help_is_complete(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    pieces = {
        "": ("compare", "predict", "calibrate", "exit code"),
        "compare": ("--out", "--refresh"),
    }  # fmt: skip
    for piece in pieces["".join(arguments)]:
        assert piece in printed


REFUSED = {
    "a file for a folder": ("compare --out {tmp}/file", "file: File exists"),
    "no command": ("", "required: COMMAND"),
    "an unknown command": ("train", "invalid choice: 'train'"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_argument_is_one_line_and_exit_code_2(line, match, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(line.format(tmp=tmp_path).split()) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("simulator: ") and out == ""
    assert re.search(match, err)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "cache"}


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_run_that_fails_is_exit_code_1_and_an_interrupted_one_130(monkeypatch, tmp_path, capsys):
    for error, code, said in (
        (WorkerError("rank 1 died\nTraceback"), 1, "simulator: rank 1 died\nTraceback\n"),
        (KeyboardInterrupt(), 130, "\nsimulator: ended with Ctrl-C\n"),
        (TypeError("not\na model"), 2, "simulator: not a model\n"),
    ):
        monkeypatch.setattr(COMMAND, "compare", fails(error))
        assert main(["compare", "--out", str(tmp_path)]) == code
        assert capsys.readouterr().err == said


def test_ctrl_c_ends_a_comparison_with_130_and_no_traceback(tmp_path):
    script = (
        "import os, signal, sys\n"
        "import simulator.__main__ as command\n"
        "import simulator.commands.compare\n"
        "from simulator import compare\n"
        "def interrupted(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    while True: pass\n"
        "compare.train = interrupted\n"
        "compare.drift = simulator.commands.compare.drift = lambda calibration: 1.0\n"
        "sys.exit(command.main(['compare']))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    assert done.returncode == 130 and done.stderr == "\nsimulator: ended with Ctrl-C\n"
