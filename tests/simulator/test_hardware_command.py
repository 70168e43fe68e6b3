"""python -m simulator hardware: the catalog in a table; one cluster with picture, figures and sources."""

import json

import pytest

from minidl.bench.gpu_cases import cases
from minidl.kernels import meta
from simulator import Cluster
from simulator.__main__ import main
from simulator.cluster_file import described
from simulator.commands import hardware
from tests.simulator.hand_made import made_up
from tests.simulator.test_cluster_file import figures


def test_the_list_has_a_line_for_each_system_and_json_the_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "list.json"
    assert main(["hardware", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[1 : 1 + len(Cluster.catalog())]] == Cluster.catalog()
    found = {system["name"]: system for system in json.loads(path.read_text())["systems"]}
    assert found["dgx-a100"] == {
        "name": "dgx-a100", "unit": 8, "memory_bytes": 80e9, "peak_flops": 312e12, "inside": pytest.approx(237.9e9),
        "between": pytest.approx(21.25e9),
    }  # fmt: skip
    assert found["horovod-pascal-25g"]["peak_flops"] is None and found["vtrain-a100-node"]["between"] is None


@pytest.mark.parametrize("name", ["meta-h100-80g-roce", "tpu-v3-core"])
def test_one_is_shown_with_topology_rooflines_and_the_source_of_every_figure(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "one.json"
    assert main(["hardware", name, "--out", str(tmp_path), "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines() if str(tmp_path) not in line)
    assert {p.name for p in tmp_path.iterdir()} == {"one.json", "hardware.png", "hardware.svg"}
    assert json.loads(path.read_text()) == json.loads(json.dumps(described(name)))
    words = said.split()
    for place, figure in figures(described(name)):
        assert place[-1] in words and all(word in said for word in figure["source"].split() if len(word) < 20)
    assert all(level["name"] in said for level in described(name)["levels"].values())


def test_the_topology_of_a_cluster_is_drawn_from_the_widest_level_to_its_devices():
    assert list(hardware.topology(described("meta-h100-80g-roce"))) == [
        "aggregation switches: fat-tree, 3,072 × 50 GB/s for each pod, 7:1 oversubscribed",
        "└─ pod: 3,072 devices, fat-tree, 8 × 50 GB/s for each 8-GPU H100 node",
        "   └─ 8-GPU H100 node: 8 devices, switch, 450 GB/s a device",
        "      └─ h100-sxm5-80gb",
    ]
    assert list(hardware.topology(described("tpu-v5e")))[1] == (
        "└─ TPU v5e pod: 256 devices, 16 × 16 torus, 50 GB/s a link"
    )


def test_this_machine_is_shown_as_it_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hardware, "this_machine", lambda tell: made_up().cluster())
    assert main(["hardware", "this-machine", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "float32" in said and "100 GFLOP/s" in said
    assert {p.name for p in tmp_path.iterdir()} == {"hardware.png", "hardware.svg"}


def test_the_kernels_that_a_gpu_is_timed_on_are_predicted_in_two_precisions(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "kernels.json"
    assert main(["hardware", "dgx-a100", "--kernels", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    found = json.loads(path.read_text())["kernels"]
    timed = [case.name for case in cases(meta)]
    assert [line.split()[0] for line in lines[2 : 2 + len(timed)]] == timed
    assert [kernel["name"] for kernel in found] == timed * 2
    add, half = found[0], found[len(timed)]
    assert add["seconds"] == pytest.approx(2e-6 + 3 * 2**28 / (0.85 * 2.039e12))  # 256 MiB, read twice and written
    assert (add["nbytes"], add["precision"], half["precision"]) == (2 * half["nbytes"], "float32", "bfloat16")
    product = next(kernel for kernel in found if kernel["name"] == "matmul")
    assert product["flops"] == 2 * 4096**3 and product["seconds"] > product["flops"] / 19.5e12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kernels"], "hardware: --kernels needs NAME, the cluster of whose device they are predicted"),
        (["moon"], "no cluster 'moon': neither a file nor one of this-machine, aws-"),
        (["horovod-pascal-25g"], "horovod-pascal-25g.toml: the file lacks 'device'"),
        (["dgx-a100", "--speed"], "--speed"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments, says, capsys):
    assert main(["hardware", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
