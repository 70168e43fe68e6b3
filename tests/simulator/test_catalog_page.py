"""simulator/catalog/README.md: its example is a cluster that is simulated, and it says what every figure means."""

import re
import shlex
from pathlib import Path

from simulator import cluster_file
from simulator.__main__ import main
from simulator.cluster_file import CATALOG
from simulator.compute import device
from simulator.hardware import Cluster

PAGE = (CATALOG / "README.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_example_is_predicted_by_the_command_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my-cluster.toml").write_text(block("toml"))
    assert Cluster.load("my-cluster.toml").devices == 8
    assert main(shlex.split(block("sh"))[3:]) == 0
    assert "8 devices (4 twin-GPU)" in capsys.readouterr().out


def test_every_entry_of_a_file_is_explained():
    cells = re.findall(r"^\| (.+?) \|", PAGE, re.MULTILINE)
    explained = {name for cell in cells for name in re.findall(r"`([\w-]+)", cell)} - {"link"}
    known = {
        "like",
        "name",
        "devices",
        "device",
        "levels",
        "kind",
        "peak_flops",
        "bandwidth",
        "topology",
        *device.BY_PRECISION,
    }
    known |= {*device.DATASHEET, *device.CALIBRATED, *cluster_file.CALIBRATED, *cluster_file.JOINED, *cluster_file.UNIT}
    known |= {*cluster_file.OWN, *(key for own in cluster_file.OWN.values() for key in own)}
    assert explained - {"levels"} == known - {"levels"}
    assert all(f"`{precision}`" in PAGE for precision in device.PRECISIONS)
    named = re.findall(r"known by its name: (.+?)\.", PAGE, re.DOTALL)[0]
    assert set(re.findall(r"`([\w-]+)`", named)) <= set(Cluster.catalog())
