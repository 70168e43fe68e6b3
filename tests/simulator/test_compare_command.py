"""`python -m simulator compare`: what it prints and writes, and how it refuses."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minidl.parallel import Plan, WorkerError
from simulator.__main__ import main
from simulator.compare import MEASURES, Comparison
from simulator.experiments import MODELS, QUICK_ROUNDS, ROUNDS
from simulator.plans_to_try import QUICK_PLANS
from tests.simulator.command import check_refused, help_text
from tests.simulator.comparisons import PLANS, TINY, tiny_comparison
from tests.simulator.hand_made import made_up
from tests.terminals import BROKEN, printed_on

pytestmark = pytest.mark.usefixtures("calibrated", "warm_workers")

COMPARE = sys.modules["simulator.compare"]
COMMAND = sys.modules["simulator.commands.compare"]


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    for module in (COMPARE, COMMAND):
        monkeypatch.setattr(module, "drift", lambda _: (1.0, 1.0))


@pytest.fixture(scope="module")
def comparison(warm_workers) -> Comparison:
    return tiny_comparison(rounds=1)


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


def under(plan: Plan, comparison: Comparison) -> Comparison:
    """All its rows of this plan, oversubscribed."""
    rows = [
        dataclasses.replace(row, plan=str(plan), workers=plan.workers, oversubscribed=True) for row in comparison.rows
    ]
    predictions = [dataclasses.replace(prediction, plan=plan) for prediction in comparison.predictions]
    return dataclasses.replace(comparison, rows=rows, predictions=predictions)


def shown(monkeypatch, tmp_path, capsys, result: Comparison, *arguments: str) -> str:
    """What the command prints of a comparison; no picture is drawn."""
    monkeypatch.setattr(COMMAND, "compare", lambda *_: result)
    monkeypatch.setattr("simulator.figures.comparison_figure", lambda result: None)
    monkeypatch.setattr("minidl.plots.save", lambda figure, path: None)
    assert main(["compare", "--out", str(tmp_path / "out"), *arguments]) == 0
    return capsys.readouterr().out


def test_it_writes_pictures_rows_and_traces_and_prints_a_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(COMMAND, "ROUNDS", 1)
    monkeypatch.setattr(COMMAND, "experiments", lambda *_: TINY)
    out = tmp_path / "not" / "yet"
    assert main(["compare", "--out", str(out)]) == 0
    printed, progress = capsys.readouterr()
    for piece in ("tiny net, 256 samples a step", "pipeline 2, 1f1b ×2", "tensor 2", "speedup", "mean absolute error"):
        assert piece in printed
    assert progress.splitlines() == [f"{i + 1} of 4: {plan.label}, tiny net" for i, plan in enumerate(PLANS)]
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "compare.png").stat().st_size > 10_000
    assert b"<svg" in (out / "compare.svg").read_bytes()[:1000]
    assert len(list(out.glob("trace-*.json"))) == 2 * len(PLANS)
    assert len(json.loads((out / "compare.json").read_text())["rows"]) == len(PLANS)


def test_the_table_has_a_line_for_each_plan_in_80_columns_and_a_line_for_each_measure(
    monkeypatch, tmp_path, capsys, comparison
):
    monkeypatch.chdir(tmp_path)
    longest = Plan(data=2, pipeline=2, micro_batches=2)
    printed = shown(monkeypatch, tmp_path, capsys, under(longest, comparison))
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("pipeline 2 × data 2, 1f1b ×2" in line and "%" in line for line in lines) == len(PLANS)
    for name, meaning in MEASURES.items():
        assert any(line.startswith(f"{name}:") and line.endswith(meaning) for line in lines)
    assert printed.count("take turns") == 1 and "4 workers" in printed  # said once


def test_a_plan_that_is_too_long_for_its_line_is_cut_and_stands_whole_below_the_table(
    monkeypatch, tmp_path, capsys, comparison
):
    monkeypatch.chdir(tmp_path)
    plan = Plan(data=2, pipeline=2, tensor=2, sharding="optimizer", bucket_mb=0.25, micro_batches=16)
    printed = shown(monkeypatch, tmp_path, capsys, under(plan, comparison))
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(" pipeline 2 × data 2") and "…" in line and "%" in line for line in lines) == len(PLANS)
    assert lines.count(f"…: {plan.label}") == len(PLANS)


def test_the_columns_of_two_models_line_up(monkeypatch, tmp_path, capsys, comparison):
    monkeypatch.chdir(tmp_path)
    one = dataclasses.replace(comparison.rows[0], model="other")
    runs, predictions = comparison.runs, comparison.predictions
    changed = dataclasses.replace(
        comparison, rows=[*comparison.rows, one], runs=[*runs, runs[0]], predictions=[*predictions, predictions[0]]
    )
    lines = shown(monkeypatch, tmp_path, capsys, changed).splitlines()
    first, second = (line for line in lines if line.startswith("plan "))
    assert first == second and len(first) > 40


def test_the_errors_stand_beside_those_of_the_null_model(monkeypatch, tmp_path, capsys, comparison):
    machine = comparison.machine | {"cores": 2}
    numbers = ((1.0, 1.1, 1.0), (2.0, 1.4, 0.5), (1.0, 1.2, 0.5), (1.0, 1.5, 0.2))
    rows = [
        dataclasses.replace(row, measured_step_seconds=m, simulated_step_seconds=s, null_step_seconds=n,
                            oversubscribed=row is comparison.rows[-1])
        for row, (m, s, n) in zip(comparison.rows, numbers, strict=True)
    ]  # fmt: skip
    changed = dataclasses.replace(comparison, rows=rows, machine=machine)
    printed = shown(monkeypatch, tmp_path, capsys, changed)
    assert re.search(r"within the cores +3 +20.0%", printed)
    assert re.search(r"of several workers +2 +25.0% +62.5%", printed)
    assert re.search(r"more workers than cores +1 +50.0% +80.0%", printed)


def test_a_busy_machine_is_said_in_one_sentence(monkeypatch, tmp_path, capsys, comparison):
    monkeypatch.chdir(tmp_path)
    said = "kept this machine busy"
    assert said not in shown(monkeypatch, tmp_path, capsys, comparison)
    first, *others = comparison.rows
    busy = dataclasses.replace(comparison, rows=[dataclasses.replace(first, drift=2.0), *others])
    assert shown(monkeypatch, tmp_path, capsys, busy).count(said) == 1


def test_the_options_choose_models_plans_and_rounds(monkeypatch, tmp_path, capsys, comparison):
    asked = []

    def compare(found, tell, chosen, rounds):
        asked.append(([experiment.name for experiment in chosen], chosen[0].plans, rounds))
        return comparison

    monkeypatch.setattr(COMMAND, "compare", compare)
    monkeypatch.setattr("simulator.figures.comparison_figure", lambda result: None)
    monkeypatch.setattr("minidl.plots.save", lambda figure, path: None)
    out = ["--out", str(tmp_path / "out")]
    assert main(["compare", *out, "--quick"]) == 0
    assert "was added" not in capsys.readouterr().out
    models = ["--model", "lstm-digits", "--model", "vae-digits"]
    assert main(["compare", *out, *models, "--plan", "data=2 pipeline=2 schedule=gpipe", "--plan", "data=2"]) == 0
    assert capsys.readouterr().out.count("One worker, to which speedups refer, was added to the plans.") == 1
    (_, quick, once), (names, plans, often) = asked
    assert quick == QUICK_PLANS and (once, often) == (QUICK_ROUNDS, ROUNDS)
    assert names == ["lstm-digits", "vae-digits"]
    assert plans == (Plan(), Plan(data=2, pipeline=2, schedule="gpipe"), Plan(data=2))


def test_what_was_just_calibrated_is_not_calibrated_again(monkeypatch, tmp_path, capsys, comparison):
    measured = []

    def calibration(refresh, progress, effort, device):
        if refresh:
            measured.append(refresh)
            progress("kernels")
        return made_up()

    monkeypatch.setattr(COMMAND, "calibration", calibration)
    monkeypatch.setattr(COMMAND, "drift", lambda _: (2.0, 1.0))
    shown(monkeypatch, tmp_path, capsys, comparison)
    assert measured == [True]  # it was kept, and the machine has become slower
    shown(monkeypatch, tmp_path, capsys, comparison, "--refresh")
    assert measured == [True, True]


@pytest.mark.parametrize("kind", [*BROKEN, "ascii"])
def test_a_comparison_is_kept_whatever_becomes_of_the_terminal(comparison, monkeypatch, tmp_path, capsys, kind):
    out = tmp_path / "out"
    nothing = dataclasses.replace(comparison.rows[0], drift=math.nan)
    changed = dataclasses.replace(comparison, rows=[nothing, *comparison.rows[1:]])
    monkeypatch.setattr(COMMAND, "compare", lambda *_: changed)
    monkeypatch.setattr("simulator.figures.comparison_figure", fails(ZeroDivisionError("of a drawing")))
    assert printed_on(monkeypatch, kind, main, ["compare", "--out", str(out)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [f"simulator: cannot write {out}/compare{ending}: of a drawing" for ending in (".png", ".svg")]
    assert len(list(out.iterdir())) == 1 + 2 * len(PLANS)
    text = (out / "compare.json").read_text()
    assert json.loads(text)["rows"][0]["drift"] is None  # JSON has no NaN


def test_help_is_complete(capsys):
    for piece in ("compare", "predict", "calibrate", "exit code"):
        assert piece in help_text(capsys)
    printed = help_text(capsys, "compare")
    fields = [f"{field.name}=" for field in dataclasses.fields(Plan)]
    for piece in ("--out", "--refresh", "--quick", "--model", "--plan", "micro_batches=N", "bucket_mb=X", "gpipe",
                  "sharding=optimizer", *fields, *MODELS):  # fmt: skip
        assert piece in printed


REFUSED = {
    "a file for a folder": ("--out {tmp}/file", "cannot make the folder .*/file: it is not a folder"),
    "an unknown model": (
        "--model gpt5",
        "--model: no model 'gpt5': neither a function FILE.py:BUILD nor one of mlp, mlp-digits",
    ),
    "a model given twice": ("--model mlp --model mlp", "the model mlp is given twice"),
    "a plan of unknown fields": ("--plan date=2", "--plan: 'date=2' is no field of a plan: write name=value"),
    "a plan in words": ("--plan data=two", "--plan: data=two: 'two' is not a whole number"),
    "no worker at all": ("--plan data=0", "--plan: data"),
    "an unknown schedule": ("--plan pipeline=2,schedule=best", "--plan: "),
    "a plan given twice": ("--plan data=2 --plan data=2", "the plan data 2 is given twice"),
    "a batch that does not divide": ("--plan data=3", "batch_size 256 is not divisible by data=3"),
    "more stages than blocks": ("--plan pipeline=99", "pipeline=99 needs at least 99 blocks"),
    "a model that is not split": ("--model vae-digits --plan tensor=2", "the builder splits no layer"),
    "a file that is not there": ("--model nowhere.py:build", "no file 'nowhere.py' for the model nowhere.py:build"),
    "more ranks than a layer has parts": ("--plan tensor=1024", "512 is not divisible by tensor=1024"),
}


@pytest.mark.parametrize(("options", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(options, match, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    check_refused(capsys, f"compare {options.format(tmp=tmp_path)}", match)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "cache"}


@pytest.mark.parametrize(("line", "match"), [("", "required: COMMAND"), ("train", "invalid choice: 'train'")])
def test_a_wrong_command_is_one_line_and_exit_code_2(line, match, capsys):
    check_refused(capsys, line, match)


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
        "compare.drift = simulator.commands.compare.drift = lambda _: (1.0, 1.0)\n"
        "sys.exit(command.main(['compare', '--quick']))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    said = "1 of 5: one worker, mlp 64-512-512-512-512-512-10\n\nsimulator: ended with Ctrl-C\n"
    assert (done.returncode, done.stderr) == (130, said)
