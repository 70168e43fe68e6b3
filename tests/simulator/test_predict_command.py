"""`python -m simulator predict`: what it prints, writes, and how it refuses."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from minidl.parallel import Plan
from minidl.trace import Trace
from minidl.units import counted, scaled
from simulator.__main__ import main
from simulator.calibrate import cache_path
from tests.simulator.command import check_refused, help_text
from tests.simulator.hand_made import made_up
from tests.terminals import BROKEN, CODES, printed_on

pytestmark = pytest.mark.usefixtures("calibrated")

GPT3 = "gpt3-175b --cluster dgx-a100 --data 8 --tensor 8 --pipeline 16 --micro-batches 24 --batch-size 192".split()
FEWER = "gpt3-175b --cluster dgx-a100 --data 8 --tensor 8 --pipeline 16 --micro-batches 8 --batch-size 64".split()
TOO_LARGE = "gpt3-175b --cluster dgx-a100 --tensor 8 --pipeline 8 --batch-size 8".split()


def predicted(folder, line, code=0):
    """What --json writes for such a command line."""
    assert main(["predict", *line.split(), "--json", str(folder / "p.json")]) == code
    return json.loads((folder / "p.json").read_text())


def test_predict_prints_a_table_and_writes_what_it_is_asked_for(tmp_path, capsys):
    paths = {what: tmp_path / name for what, name in (("json", "p.json"), ("trace", "t.json"), ("timeline", "t.png"))}
    options = [part for what, path in paths.items() for part in (f"--{what}", str(path))]
    assert main(["predict", *FEWER, "--tokens", "300e9", *options]) == 0
    printed = capsys.readouterr().out
    first, second, *rest = printed.splitlines()
    assert first == "gpt3-175b · pipeline 16 × data 8 × tensor 8, 1f1b, bfloat16, 8 micro-batches"
    assert second == "1,024 devices (128 DGX A100), predicted"
    assert max(map(len, rest)) <= 80
    for piece in (
        "64 samples of 2,048 tokens", "bfloat16, Adam, CrossEntropyLoss", "bubble", "samples/s, ", " tokens/s",
        "300 billion tokens", " days", "model FLOPs utilisation", "80 GB: fits",
    ):  # fmt: skip
        assert piece in printed
    document = json.loads(paths["json"].read_text())
    assert document["plan"]["pipeline"] == 16 and len(document["memory"]) == 16
    assert sum(document["breakdown"].values()) == pytest.approx(document["step_seconds"])
    assert Trace.load(paths["trace"]).step_seconds == pytest.approx(document["step_seconds"], rel=1e-6)
    assert paths["timeline"].read_bytes().startswith(b"\x89PNG") and paths["timeline"].stat().st_size > 30_000


def test_predict_prints_no_remainder_of_rounding_and_one_worker_is_idle(capsys):
    assert main("predict mlp-digits --cluster dgx-a100 --batch-size 64".split()) == 0
    printed = capsys.readouterr().out
    assert re.search(r"idle +0 s \(0%\)", printed) and "bubble" not in printed
    assert re.search(r"\d kB", printed) and "80 GB: fits" in printed and not re.search(r"-\d", printed.split("step")[1])


def test_predict_on_this_machine_uses_its_calibration_and_says_once_where_workers_share_cores(capsys):
    there = made_up().machine["cores"]
    for workers, sentences in ((there, 0), (2 * there, 1)):
        assert main(["predict", "mlp-digits", "--data", str(workers), "--batch-size", str(64 * workers)]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"{counted(workers, 'worker')} on {counted(there, 'core')} of this machine, predicted" in printed
        assert printed.count(f"workers share {counted(there, 'core')}: they take turns") == sentences


def test_predict_says_what_it_assumed_and_takes_it_as_options(tmp_path, capsys):
    line = "gpt2-small --cluster dgx-a100 --batch-size 4"
    plain = predicted(tmp_path, line)
    assert plain["assumptions"] == {
        "precision": "bfloat16", "stack": "default", "sequence": 1024, "optimizer": "Adam", "loss": "CrossEntropyLoss",
    }  # fmt: skip
    other = predicted(tmp_path, f"{line} --optimizer sgd --sequence 512 --layers 24 --precision float32")
    assert other["assumptions"] == plain["assumptions"] | {"precision": "float32", "sequence": 512, "optimizer": "SGD"}
    assert "4 samples of 512 tokens" in capsys.readouterr().out
    parameters = [document["memory"][0]["parameters"] for document in (plain, other)]
    assert 1.5 < parameters[1] / parameters[0] / 2 < 2  # twice the bytes; the embedding is the same
    vae = predicted(tmp_path, "vae-digits --cluster dgx-a100 --batch-size 4")
    assert vae["assumptions"]["loss"] == "VAELoss" and vae["assumptions"]["sequence"] is None


def test_every_field_of_a_plan_is_an_option(tmp_path):
    options = "--pipeline 2 --tensor 2 --micro-batches 2 --schedule gpipe --chunks 2 --recompute full"
    options += " --bucket-mb 2.5 --sharding optimizer --sequence-parallel --precision float16"
    for model, axis in (("gpt-tiny", "context"), ("moe-tiny", "expert")):
        asked = f"{model} --cluster dgx-a100 --batch-size 8 --data 2 --{axis} 2 {options}"
        found = predicted(tmp_path, asked)["plan"]
        assert found == {
            "data": 2, "pipeline": 2, "tensor": 2, "context": 1, "expert": 1, "micro_batches": 2, "schedule": "gpipe",
            "chunks": 2, "recompute": "full", "bucket_mb": 2.5, "sharding": "optimizer", "sequence_parallel": True,
            "precision": "float16",
        } | {axis: 2}  # fmt: skip
        assert [name for name, default in asdict(Plan()).items() if found[name] == default] == (
            ["expert"] if axis == "context" else ["context"]
        )


def test_tokens_give_a_rate_and_the_time_for_as_many_as_are_asked_for(tmp_path):
    document = predicted(tmp_path, f"{' '.join(GPT3)} --tokens 300B")
    assert document["tokens_per_second"] == pytest.approx(192 * 2048 / document["step_seconds"])
    assert document["seconds"] == pytest.approx(300e9 / document["tokens_per_second"])
    assert document["days"] == pytest.approx(document["seconds"] / 24 / 3600)
    images = predicted(tmp_path, "lenet --cluster dgx-a100 --batch-size 8")
    assert images["tokens_per_second"] is images["tokens"] is images["days"] is None


def test_replicas_fill_the_devices_unless_they_are_given(tmp_path, capsys):
    line = "gpt-tiny --cluster dgx-a100 --tensor 2 --batch-size 64"
    for options, data, devices, said in (
        ("--devices 16", 8, 16, "16 devices (2 DGX A100), predicted"),
        ("--devices 2", 1, 2, "2 devices of one DGX A100, predicted"),
        ("--devices 16 --data 4", 4, 16, "16 devices (2 DGX A100), 8 used, predicted"),
        ("--devices 17 --data 1", 1, 17, "17 devices (3 DGX A100), 2 used, predicted"),
        ("", 1, 2, "2 devices of one DGX A100, predicted"),
    ):
        document = predicted(tmp_path, f"{line} {options}")
        assert (document["plan"]["data"], document["devices"]) == (data, devices)
        assert capsys.readouterr().out.splitlines()[1] == said


def test_a_plan_that_does_not_fit_is_exit_code_1_and_a_line_says_by_how_much(tmp_path, capsys):
    paths = [tmp_path / name for name in ("p.json", "t.json", "t.svg")]
    options = [part for what, path in zip(("--json", "--trace", "--timeline"), paths, strict=True)
               for part in (what, str(path))]  # fmt: skip
    assert main(["predict", *TOO_LARGE, *options]) == 1
    assert all(path.stat().st_size > 100 for path in paths)
    document = json.loads(paths[0].read_text())
    assert not document["fits"] and document["memory_bytes"] > document["device_memory_bytes"] == 80e9
    out, err = capsys.readouterr()
    needed, more = (scaled(nbytes, "B") for nbytes in (document["memory_bytes"], document["memory_bytes"] - 80e9))
    assert f"\ndoes not fit: {needed} of 80 GB, {more} too much on the fullest device (stage " in out and err == ""
    assert max(map(len, out.splitlines())) <= 80


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


def test_predict_takes_a_config_and_a_stack_and_says_where_axes_lie(tmp_path, capsys):
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "hidden_act": "silu",
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    line = f"{path} --cluster dgx-a100 --tensor 2 --data 8 --batch-size 16 --stack megatron-lm"
    found = predicted(tmp_path, f"{line} --memory {tmp_path}/memory.svg")
    assert "<svg" in (tmp_path / "memory.svg").read_text()
    assert found["stack"] == "megatron-lm" and found["assumptions"]["sequence"] == 32 and found["pace"] > 0
    assert [(axis["axis"], axis["size"]) for axis in found["placement"]] == [("tensor", 2), ("data", 8)]
    printed = capsys.readouterr().out
    assert "software" in printed and "Megatron-LM" in printed and "placement" in printed
    assert max(map(len, printed.splitlines()[2:])) <= 80
    path.write_text(json.dumps(config | {"architectures": ["MambaForCausalLM"]}))
    check_refused(capsys, f"predict {path} --cluster dgx-a100 --batch-size 16", "architectures")
    check_refused(capsys, f"predict {tmp_path}/no.json --cluster dgx-a100 --batch-size 16", "no.json")


def test_predict_says_with_which_changes_a_plan_would_fit(tmp_path, capsys):
    found = predicted(tmp_path, "gpt3-175b --cluster dgx-a100 --tensor 8 --pipeline 8 --data 4 --batch-size 32", 1)
    assert not found["fits"] and found["ways_to_fit"]
    assert all(way["memory_bytes"] <= found["device_memory_bytes"] for way in found["ways_to_fit"])
    printed = " ".join(capsys.readouterr().out.split())
    first = found["ways_to_fit"][0]["changes"]
    assert "It would fit with " + " ".join(f"{name}={value}" for name, value in first.items()) in printed


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


def test_a_prediction_loads_no_matplotlib_unless_it_draws():
    code = "import sys, simulator.commands.predict; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Help and refusals


def test_help_names_every_option_and_what_there_is_to_choose_from(capsys):
    said = help_text(capsys, "predict")
    for piece in (
        "--cluster", "--precision", "--data", "--tensor", "--pipeline", "--micro-batches", "--schedule", "--batch-size",
        "--bucket-mb", "--sharding", "--json", "--trace", "--timeline", "gpt3-175b", "dgx-a100", "1f1b", "replicas",
        "stages", "share a layer", "slices", "of the pipeline", "--optimizer", "--sequence", "--layers", "--devices",
        "--tokens", "README.md beside the catalog",
    ):  # fmt: skip
        assert piece in said


REFUSED = {
    "an unknown model": ("predict gpt5 --batch-size 8 --cluster dgx-a100", "no model 'gpt5': neither a function FILE"),
    "an unknown cluster": (
        "predict gpt-tiny --batch-size 8 --cluster moon",
        "no cluster 'moon': neither a file nor one of this-machine, aws-p2-16xk80"),
    "a batch that does not divide": (
        "predict gpt-tiny --batch-size 10 --data 4 --cluster dgx-a100", "batch_size 10 is not divisible by data=4"),
    "more stages than blocks": (
        "predict mlp-digits --batch-size 8 --pipeline 9 --cluster dgx-a100", "pipeline=9 needs at least 9 blocks"),
    "a layer that does not split": (
        "predict gpt-tiny --batch-size 8 --tensor 3 --cluster dgx-a100", "gpt: heads=4 is not divisible by tensor=3"),
    "no sequence": ("predict resnet50 --batch-size 8 --sequence 8", "resnet50 has no sequence: it has layers, chan"),
    "tokens of images": (
        "predict lenet --batch-size 8 --tokens 3e9 --cluster tpu-v4", "--tokens: lenet does not read sequences of tok"),
    "no number of tokens": ("predict gpt-tiny --batch-size 8 --tokens 3X", "'3X' is not a number of at least 1, as"),
    "infinitely many tokens": ("predict gpt-tiny --batch-size 8 --tokens inf", "'inf' is not a number of at least 1"),
    "devices that the plan does not fill": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --tensor 2 --pipeline 2 --devices 6",
        r"--devices 6 is not divisible by pipeline=2 × tensor=2 \(= 4\): say how many replicas there are with --data"),
    "a batch that cannot be cut over the devices": (
        "predict gpt-tiny --batch-size 6 --cluster dgx-a100 --tensor 2 --devices 8",
        r"batch_size 6 is not divisible by data=4 × micro_batches=1 \(= 4\); data=4 fills --devices 8"),
    "fewer devices than the plan needs": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --data 2 --pipeline 4 --devices 7",
        "the plan pipeline 4 × data 2, 1f1b, bfloat16 needs 8 devices: --devices gives 7"),
    "fewer devices than one replica needs": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --pipeline 4 --devices 3", "needs 4 devices: --devices g"),
    "fewer devices of this machine": (
        "predict gpt-tiny --batch-size 8 --data 2 --devices 1", "needs 2 devices: --devices gives 1"),
    "more devices than this machine has": (
        "predict gpt-tiny --batch-size 4096 --devices 4096", "this machine has .*: --devices 4096 needs another --clu"),
    "an unknown optimizer": ("predict gpt-tiny --batch-size 8 --optimizer best", "invalid choice: 'best'"),
    "no rank at all": (
        "predict gpt-tiny --batch-size 8 --data 0 --cluster dgx-a100", "--data: '0' is not a whole number"),
    "an unknown stack": (
        "predict gpt-tiny --batch-size 8 --cluster dgx-a100 --stack torch", "no stack 'torch': neither a file nor one"),
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
    "an unknown sharding": ("predict gpt-tiny --batch-size 8 --sharding all", "--sharding: invalid choice: 'all'"),
    "buckets in words": ("predict gpt-tiny --batch-size 8 --bucket-mb big", "--bucket-mb: 'big' is not a positive num"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_argument_is_one_line_and_exit_code_2(line, match, tmp_path, capsys):
    check_refused(capsys, line.format(tmp=tmp_path), match)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_corrupt_cache_is_one_line_of_warning(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["simulator.calibrate"], "measure", lambda *_: made_up())
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
