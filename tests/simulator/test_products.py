"""`python -m simulator products`: what a split product sends and takes, what is printed and drawn, what is refused."""

import json
import sys

import numpy as np
import pytest

from minidl.events import COLLECTIVES, COMPUTE, Event
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from minidl.parallel.handle import CollectiveCall
from minidl.trace import Trace
from simulator.__main__ import main
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.products import SPLITS, Squares, product, product_seconds, products
from simulator.traffic import sent_bytes
from tests.simulator.command import check_refused, help_text
from tests.simulator.hand_made import cluster, made_up

pytestmark = pytest.mark.usefixtures("calibrated", "warm_workers")

COMMAND = sys.modules["simulator.commands.products"]
N = 64


def predicted(split, workers):
    example = np.zeros((N, 1), np.float32), np.zeros(N, np.int64)
    return simulate(product(N, split), Plan(tensor=workers), cluster(), N, example=example, loss=Squares())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_each_rank_does_its_share_of_the_three_products(split, workers):
    blocks = predicted(split, workers).program.costs.profile.blocks
    calls = [c for block in blocks for c in (*block.forward, *block.backward) if isinstance(c, KernelCall)]
    assert sum(c.flops for c in calls if c.kind == "product") == 3 * 2 * N**3 / workers


@pytest.mark.parametrize(("workers", "side"), [(4, 2), (16, 4), (64, 8)])
def test_on_a_grid_a_rank_sends_the_less_the_more_there_are_else_it_sends_a_matrix_twice(workers, side):
    rows = {row.split: row for row in products([N], [workers], cluster(precisions=("float32",)))}
    matrix = 4 * N**2  # bytes
    for split in ("rows", "columns", "inner"):
        assert rows[split].sent_bytes == 2 * (workers - 1) / workers * matrix
    assert rows["summa"].sent_bytes == 6 * (side - 1) / workers * matrix
    assert all(row.measured_seconds is None for row in rows.values())


def test_an_all_reduce_sends_every_byte_twice_and_others_once():
    sent = {name: sent_bytes(CollectiveCall(name, (), 4, 100)) for name in ("all_reduce", "broadcast", "reduce")}
    assert sent == {"all_reduce": 150, "broadcast": 75, "reduce": 75}


def test_in_lower_precision_fewer_bytes_are_sent():
    (full,), (half,) = (
        [row for row in products([N], [4], on) if row.split == "inner"]
        for on in (made_up().cluster(), Cluster.load("dgx-a100", devices=4))
    )
    assert half.sent_bytes == full.sent_bytes / 2


def test_the_time_is_that_of_forward_and_backward_with_what_is_communicated_inside():
    def step(number, rank, late):
        named = ("F0", COMPUTE, 0, 2), ("broadcast", COLLECTIVES, 2, 3), ("F0", COMPUTE, 3, 4 + late)
        others = ("loss0", COMPUTE, 5, 9), ("B0", COMPUTE, 10, 12), ("update", COMPUTE, 12, 20)
        return [Event(rank, lane, name, start, end, number) for name, lane, start, end in (*named, *others)]

    events = [*step(0, 0, 0.5), *step(1, 0, 0), *step(1, 1, 1)]
    assert product_seconds(Trace(events), 1) == 6.5  # 6 on one rank, 7 on the other


def test_within_the_cores_products_are_measured_and_beyond_simulated_alone(monkeypatch):
    monkeypatch.setattr("simulator.products.RUN_SECONDS", 0.01)
    told = []
    rows = products([N], [1, 2, 4], cluster(cores=2, precisions=("float32",)), 2, lambda *what: told.append(what))
    assert [(row.workers, row.split) for row in rows] == [(1, "whole"), *((p, s) for p in (2, 4) for s in SPLITS)]
    assert [row.measured_seconds is not None for row in rows] == [row.workers <= 2 for row in rows]
    assert all(row.measured_seconds > 0 for row in rows if row.workers <= 2)
    assert told[0] == ("whole, 64 × 64, 1 worker", 0, 9) and told[-1] == ("summa, 64 × 64, 4 workers", 8, 9)


# The command


def test_it_prints_a_table_in_80_columns_and_writes_pictures_and_numbers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("simulator.products.RUN_SECONDS", 0.01)
    monkeypatch.setattr(COMMAND, "cores", lambda: 2)
    out, numbers = tmp_path / "not" / "yet", tmp_path / "split.json"
    sizes = "--size 32 --size 64 --workers 1 --workers 2 --workers 16".split()
    assert main(["products", "--out", str(out), "--json", str(numbers), *sizes]) == 0
    printed, told = capsys.readouterr()
    lines = printed.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for piece in ("32 × 32, float32", "64 × 64, float32", "rows", "columns", "inner", "summa", "a/b: a is measured"):
        assert piece in printed
    assert len(told.splitlines()) == 2 * (1 + 4 + 4)
    assert (out / "products.png").read_bytes().startswith(b"\x89PNG") and (out / "products.svg").exists()
    rows = json.loads(numbers.read_text())["rows"]
    assert len(rows) == 18 and {row["measured_seconds"] is None for row in rows if row["workers"] == 16} == {True}


def test_for_another_cluster_nothing_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("simulator.products.train", None)
    arguments = ["--cluster", "dgx-a100", "--size", "1024", "--workers", "16", "--out", str(tmp_path)]
    assert main(["products", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "All is simulated." in printed and "share" not in printed


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("--size 100 --workers 16", "matrices of 100 × 100 are not divisible over 16 workers"),
        ("--size 0", "'0' is not a whole number of at least 1"),
        ("--workers two", "'two' is not a whole number"),
        ("--cluster nowhere", "no cluster 'nowhere'"),
        ("--json /nowhere/x.json", "cannot write /nowhere/x.json"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(line, match, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    check_refused(capsys, f"products {line}", match)


def test_the_help_says_all_and_has_two_examples(capsys):
    text = help_text(capsys, "products")
    for piece in ("--size", "--workers", "--cluster", "--out", "--json", "exit code", "(SUMMA)"):
        assert piece in text
    assert text.count("python -m simulator products --") == 2


def test_the_picture_has_a_column_for_each_size_and_a_line_for_each_split():
    from simulator.product_figure import product_figure

    rows = products([32, N], [1, 4, 16], cluster())
    figure = product_figure(rows, cluster())
    above, _, below, _ = figure.axes
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["32 × 32", "64 × 64"]
    lines = [line for line in above.lines if len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in lines] == [[1, 4, 16]] * len(SPLITS)
    sent = [list(line.get_ydata()) for line in below.lines if len(line.get_xdata())]
    assert sent[SPLITS.index("summa")][1] < sent[SPLITS.index("rows")][1]
