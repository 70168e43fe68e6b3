"""simulator/catalog/README.md: its example is a cluster that is simulated, and it says what every figure means."""

import re
import shlex
from pathlib import Path

from simulator.__main__ import main
from simulator.compute.device import CALIBRATED, DATASHEET, PRECISIONS
from simulator.hardware import CATALOG, Cluster, tomllib

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
    explained = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    table = tomllib.loads((CATALOG / "dgx-a100.toml").read_text())
    inside = [DATASHEET, CALIBRATED, table["node"], table["network"], {"kind", "peak_flops", "gemm_fractions"}]
    assert explained == {*table.keys() - {"device", "node", "network"}, *(key for part in inside for key in part)}
    assert all(f"`{precision}`" in PAGE for precision in PRECISIONS)
    assert set(Cluster.catalog()) == set(re.findall(r"`([\w-]+)\.toml`", PAGE)) - {"my-cluster"}
