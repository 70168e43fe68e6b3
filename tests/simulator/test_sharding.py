"""What replicas hold under each sharding: the figures of the paper; a simulation and a training by its formula."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from minidl.parallel import Plan
from minidl.parallel.instructions import GatherParameters
from minidl.parallel.memory import KINDS, Memory
from minidl.parallel.plan import SHARDINGS
from simulator.__main__ import main
from simulator.commands.sharding import _show
from simulator.hardware import Cluster
from simulator.network.shared_memory import SharedMemory
from simulator.predict import simulate
from simulator.prices import Prices
from simulator.sharding import Row, formula, here, sharding, states
from simulator.stacks import Stack
from tests.simulator.hand_made import cluster

FIGURE_1 = {"none": 120, "optimizer": 31.4, "gradients": 16.6, "parameters": 1.9}  # GB; Rajbhandari et al. 2020
WITHIN = 0.05


@pytest.mark.parametrize("name", SHARDINGS)
def test_the_formula_gives_the_figures_of_the_paper(name):
    """7.5 billion parameters over 64 devices, in 16 bits, with nothing whole for a moment."""
    assert states(formula(name, 64, 7_500_000_000, 0, scale=0.5)) / 1e9 == pytest.approx(FIGURE_1[name], rel=0.02)


@pytest.mark.parametrize("workers", [8])
def test_a_simulated_worker_of_a_cluster_holds_what_the_formula_says(workers):
    rows = sharding(workers, Cluster.load("dgx-a100", devices=workers), measured=False)
    assert [row.sharding for row in rows] == list(SHARDINGS)
    held = [states(row.simulated) for row in rows]
    assert held == sorted(held, reverse=True) and len(set(held)) == len(held)
    assert all(abs(row.simulated_error) < WITHIN and row.measured_error is None for row in rows)


@pytest.mark.usefixtures("warm_workers")
def test_a_trained_worker_holds_what_the_formula_says_and_exactly_what_is_simulated(monkeypatch):
    monkeypatch.setattr("simulator.sharding.STEPS", 3)  # from the second on, all that is held is there
    for row in sharding(2, cluster(cores=2), measured=True):
        assert abs(row.simulated_error) < WITHIN and abs(row.measured_error) < WITHIN
        assert row.measured == row.simulated


def test_the_command_writes_table_pictures_and_numbers(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    arguments = ["sharding", "--cluster", "dgx-a100", "--workers", "8", "--out", str(tmp_path), "--json", str(path)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SHARDINGS) and "8 replicas on DGX A100 cluster" in " ".join(said.split())
    assert {p.name for p in tmp_path.iterdir()} == {"numbers.json", "sharding.png", "sharding.svg"}
    rows = json.loads(path.read_text())["rows"]
    assert [row["sharding"] for row in rows] == list(SHARDINGS)
    for row in rows:
        assert row["measured"] is None and row["measured_error"] is None
        assert abs(row["simulated_error"]) < WITHIN
        assert row["simulated"].keys() == row["formula"].keys() == {*KINDS}


def test_wrong_arguments_of_the_command_are_refused(capsys):
    for arguments in (["--workers", "0"], ["--workers", "1"], ["--cluster", "nowhere"], ["--size", "3"]):
        assert main(["sharding", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", SHARDINGS[1:])
def test_where_ranks_share_memory_parameters_that_stay_whole_are_gathered_for_the_price_of_meeting(name):
    """They have one copy of them; what is dropped is gathered into slots of each rank's own, and that is copied."""
    network = SharedMemory({"all_gather": [(1, 1.0), (1e9, 9.0)], "all_reduce": [(1, 1.0)]}, {}, [(1, 1.0)], [(1, 1.0)])
    program = simulate(here, Plan(data=2, sharding=name), cluster(cores=2), 4).program
    gathers = [i for i in program[0].step if isinstance(i, GatherParameters)]
    prices = Prices(replace(cluster(cores=2), network=network), program.costs, Stack.load("default"))
    seconds = {prices.collective(0, i) for i in gathers}
    assert gathers and (seconds == {1.0}) == (name != "parameters")


def test_a_table_with_what_was_measured_fits_into_80_columns():
    memory = Memory(6.5e6, 6.5e6, 12.9e6, 4.56e6)
    row = Row("parameters", 4, memory, memory, 0.237, memory, 0.205)
    console = Console(width=80, file=io.StringIO())
    _show([row], cluster(cores=2), console)
    said = console.file.getvalue()
    _, line, *_ = said.split("\n")
    assert line.startswith("parameters") and "205/237 ms" in line
