"""`python -m simulator predict`: what it prints, writes, and how it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minidl.trace import Trace
from simulator.__main__ import main
from simulator.calibrate import cache_path
from tests.simulator.command import check_refused, help_text
from tests.simulator.hand_made import made_up
from tests.terminals import BROKEN, CODES, printed_on

pytestmark = pytest.mark.usefixtures("calibrated")

GPT3 = "gpt3-175b --cluster dgx-a100 --data 8 --tensor 8 --pipeline 16 --micro-batches 24 --batch-size 192".split()


def test_predict_prints_a_table_and_writes_what_it_is_asked_for(tmp_path, capsys):
    paths = {what: tmp_path / name for what, name in (("json", "p.json"), ("trace", "t.json"), ("timeline", "t.png"))}
    options = [part for what, path in paths.items() for part in (f"--{what}", str(path))]
    assert main(["predict", *GPT3, *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for piece in ("gpt3-175b", "on 1024 x", "model FLOPs utilisation", "bubble", "throughput", "fits", "optimizer"):
        assert piece in printed
    document = json.loads(paths["json"].read_text())
    assert document["plan"]["pipeline"] == 16 and len(document["memory"]) == 16
    assert sum(document["breakdown"].values()) == pytest.approx(document["step_seconds"])
    assert Trace.load(paths["trace"]).step_seconds == pytest.approx(document["step_seconds"], rel=1e-6)
    assert paths["timeline"].read_bytes().startswith(b"\x89PNG") and paths["timeline"].stat().st_size > 30_000


def test_predict_prints_no_remainder_of_rounding(capsys):
    assert main("predict mlp-digits --cluster dgx-a100 --batch-size 64".split()) == 0
    printed = capsys.readouterr().out
    assert re.search(r"bubble +│ 0 s \(0%\)", printed)
    assert re.search(r"\d kB", printed) and "80 GB: fits" in printed and not re.search(r"-\d", printed.split("step")[1])


def test_predict_on_this_machine_uses_its_calibration(capsys):
    assert main(["predict", "mlp-digits", "--data", "2", "--batch-size", "64"]) == 0
    assert "on 2 x this machine" in " ".join(capsys.readouterr().out.split())


def test_predict_takes_a_file_and_a_precision(tmp_path, capsys):
    path = Path(__file__).parents[2] / "simulator" / "catalog" / "dgx-a100.toml"
    seconds = []
    for precision in ("bfloat16", "float32"):
        out = tmp_path / "p.json"
        arguments = [
            "gpt-tiny",
            "--cluster",
            str(path),
            "--batch-size",
            "64",
            "--precision",
            precision,
            "--json",
            str(out),
        ]
        assert main(["predict", *arguments]) == 0
        seconds.append(json.loads(out.read_text())["step_seconds"])
    assert seconds[0] < seconds[1]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_prediction_is_kept_whatever_becomes_of_the_terminal(tmp_path, monkeypatch, kind):
    options = ["--json", str(tmp_path / "p"), "--trace", str(tmp_path / "t"), "--timeline", str(tmp_path / "t.svg")]
    arguments = ["predict", "mlp-digits", "--data", "2", "--batch-size", "64", *options]
    assert printed_on(monkeypatch, kind, main, arguments) == CODES[kind]
    assert all((tmp_path / name).stat().st_size > 100 for name in ("p", "t", "t.svg"))


@pytest.mark.parametrize("columns", ["0", "20", "40"])
def test_no_word_of_a_prediction_is_lost_on_a_narrow_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main("predict mlp-digits --cluster dgx-a100 --batch-size 64".split()) == 0
    printed = capsys.readouterr().out.split()
    assert {"utilisation", "samples/s", "activations", "parameters", "throughput", "fits"} <= set(printed)


# Help and refusals


def test_help_names_every_option_and_what_there_is_to_choose_from(capsys):
    said = help_text(capsys, "predict")
    for piece in (
        "--cluster", "--precision", "--data", "--tensor", "--pipeline", "--micro-batches", "--schedule", "--batch-size",
        "--json", "--trace", "--timeline", "gpt3-175b", "dgx-a100", "1f1b", "replicas", "stages", "share a layer",
        "slices", "of the pipeline",
    ):  # fmt: skip
        assert piece in said


REFUSED = {
    "an unknown model": ("predict gpt5 --batch-size 8 --cluster dgx-a100", "unknown model 'gpt5': there are"),
    "an unknown cluster": (
        "predict gpt-tiny --batch-size 8 --cluster moon",
        "no cluster 'moon': neither a file nor one of this-machine, dgx-a100"),
    "a batch that does not divide": (
        "predict gpt-tiny --batch-size 10 --data 4 --cluster dgx-a100", "batch_size 10 is not divisible by data=4"),
    "more stages than blocks": (
        "predict mlp-digits --batch-size 8 --pipeline 9 --cluster dgx-a100", "pipeline=9 needs at least 9 blocks"),
    "a layer that does not split": (
        "predict gpt-tiny --batch-size 8 --tensor 3 --cluster dgx-a100", "gpt: heads=4 is not divisible by tensor=3"),
    "no rank at all": (
        "predict gpt-tiny --batch-size 8 --data 0 --cluster dgx-a100", "--data: '0' is not a whole number"),
    "a precision it does not have": (
        "predict gpt-tiny --batch-size 8 --cluster tpu-v4 --precision float32", "has no precision 'float32'"),
    "a precision of this machine": ("predict gpt-tiny --batch-size 8 --precision float16", "machine trains in float32"),
    "a missing folder": (
        "predict gpt-tiny --batch-size 8 --cluster tpu-v4 --json {tmp}/no/p.json",
        "cannot write .*p.json: No such file"),
    "a folder for a file": ("predict gpt-tiny --batch-size 8 --cluster dgx-a100 --trace {tmp}", "Is a directory"),
    "a picture of no known form": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --timeline {tmp}/t.pdf",
        "t.pdf' does not end in .png or .svg"),
    "one file for two": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --json {tmp}/x --trace {tmp}/x", "x is given twice"),
    "no batch size": ("predict gpt-tiny", "required: --batch-size"),
    "a batch size in words": ("predict gpt-tiny --batch-size many", "'many' is not a whole number of at least 1"),
    "an unknown schedule": ("predict gpt-tiny --batch-size 8 --schedule best", "invalid choice: 'best'"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_argument_is_one_line_and_exit_code_2(line, match, tmp_path, capsys):
    check_refused(capsys, line.format(tmp=tmp_path), match)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_corrupt_cache_is_one_line_of_warning(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["simulator.calibrate"], "measure", lambda progress, effort: made_up())
    cache_path().write_text("{")
    assert main(["predict", "mlp-digits", "--batch-size", "8"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: the calibration cache") and err.count("\n") == 1


def run(*arguments, **options):
    command = [sys.executable, "-m", "simulator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_command_works_from_any_folder_and_refuses_without_a_traceback(tmp_path):
    folder = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": folder}
    done = run("predict", "gpt-tiny", "--cluster", "dgx-a100", "--batch-size", "8", cwd=tmp_path, env=environment)
    assert done.returncode == 0 and "gpt-tiny" in done.stdout and done.stderr == ""
    wrong = run("predict", "gpt-tiny", "--cluster", "moon", "--batch-size", "8", cwd=tmp_path, env=environment)
    assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.count("\n") == 1
