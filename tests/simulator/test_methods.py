"""`python -m simulator methods`: what its methods are and cost, and what is printed, written and refused."""

import json
import sys

import pytest

from minidl.events import COMPUTE, Event
from minidl.parallel import Plan
from minidl.parallel.handle import CollectiveCall
from minidl.trace import Trace
from simulator.__main__ import main
from simulator.commands.methods import markdown
from simulator.compare import predicted
from simulator.hardware import Cluster
from simulator.method_list import METHODS
from simulator.methods import chosen_methods, fitting, simulated, usual_step
from simulator.traffic import sent_bytes, traffic
from tests.simulator.command import check_refused, help_text

pytestmark = pytest.mark.usefixtures("calibrated", "warm_workers")

NAMES = {method.name: method for method in METHODS}


@pytest.fixture(scope="module")
def on_cluster():
    """Each method on two devices of a DGX A100: its row and its trace."""
    return {row.name: (row, trace) for row, trace in simulated(METHODS, 2, Cluster.load("dgx-a100", devices=2))}


def test_the_methods_have_different_names_and_say_what_they_are_when_they_pay_and_who_published_them():
    assert len({method.name for method in METHODS}) == len(METHODS)
    for method in METHODS:
        assert method.what and method.pays and "20" in method.source or "19" in method.source


def test_each_method_can_be_trained_by_two_workers():
    for method in METHODS:
        (plan,) = method.experiment(2).plans
        assert plan.workers == 2


def test_workers_are_spread_over_each_axis_of_a_plan_under_each_schedule():
    plans = [method.plan(2) for method in METHODS]
    assert {axis for plan in plans for axis in plan.axes} == {"data", "pipeline", "tensor", "context", "expert"}
    assert {plan.schedule for plan in plans} >= {"naive", "gpipe", "1f1b", "interleaved", "zero-bubble"}
    assert {plan.recompute for plan in plans} == {"none", "selective", "full"}
    assert any(plan.sharding == "optimizer" for plan in plans) and any(plan.sequence_parallel for plan in plans)


def test_each_method_sends_something_and_holds_less_than_one_worker_that_does_all(on_cluster):
    for row, _ in on_cluster.values():
        assert row.sent.total > 0 and row.memory_bytes < row.one_worker_memory_bytes, row.name


def test_pipelines_send_messages_replicas_collectives_and_split_layers_inside_of_layers(on_cluster):
    sent = {name: row.sent for name, (row, _) in on_cluster.items()}
    assert sent["gpipe"].messages == sent["1f1b"].messages > 0 == sent["gpipe"].layers
    assert sent["interleaved"].messages == 3 * sent["1f1b"].messages  # three borders of four chunks, of a rank
    assert sent["data"].collectives > 0 == sent["data"].layers == sent["data"].messages
    assert sent["transformer layers"].layers > 100 * sent["transformer layers"].collectives


def test_data_parallelism_of_two_sends_as_many_bytes_as_there_are_gradients():
    experiment, plan = NAMES["data"].experiment(2), Plan(data=2)
    found = traffic(predicted(experiment, plan, Cluster.load("dgx-a100", devices=2)).program)
    gradients = sum(p.nbytes for block in experiment.profile(plan).blocks for p in block.parameters)
    assert found.collectives == pytest.approx(gradients, rel=1e-3) and found.total == found.collectives


def test_a_message_is_sent_once_and_by_its_sender():
    sent = {name: sent_bytes(CollectiveCall(name, ("context",), 4, 100)) for name in ("send", "recv")}
    assert sent == {"send": 100, "recv": 0}
    assert sent_bytes(CollectiveCall("all_reduce", ("tensor",), 4, 100, "wait")) == 0


def test_what_cannot_be_spread_over_so_many_workers_is_left_out_and_says_why():
    fits, others = fitting([NAMES["data"], NAMES["interleaved"]], 8)
    assert [method.name for method in fits] == ["data"] and "blocks" in others["interleaved"]


def test_the_usual_step_of_a_trace_takes_the_median_time_and_is_not_the_first():
    lengths = [9.0, 3.0, 1.0, 2.0]
    trace = Trace([Event(0, COMPUTE, "F0", 10 * n, 10 * n + t, n) for n, t in enumerate(lengths)], "measured", 1)
    (event,) = usual_step(trace).events
    assert event.end - event.start == 2.0
    assert usual_step(trace.of_step(0)).events == trace.of_step(0).events


def test_methods_are_chosen_by_name():
    assert [method.name for method in chosen_methods(["1f1b", "data"])] == ["1f1b", "data"]
    assert chosen_methods([]) == list(METHODS)


def test_on_a_cluster_all_is_simulated(capsys, tmp_path):
    path = tmp_path / "methods.json"
    assert main(f"methods --cluster dgx-a100 --workers 4 --json {path} --method data --method 1f1b".split()) == 0
    out = capsys.readouterr().out
    assert "Li et al. 2020" in out and max(map(len, out.splitlines())) <= 80
    document = json.loads(path.read_text())
    assert [row["name"] for row in document["rows"]] == ["data", "1f1b"] and document["mean_absolute_error"] is None
    for row in document["rows"]:
        assert row["workers"] == 4 and row["simulated_step_seconds"] > 0 and row["measured_step_seconds"] is None
        assert row["memory_bytes"] < row["one_worker_memory_bytes"] and sum(row["sent"].values()) > 0


def test_here_each_method_is_measured_beside_what_is_simulated_and_drawn(monkeypatch, capsys, tmp_path):
    for module in ("simulator.compare", "simulator.commands.compare"):
        monkeypatch.setattr(sys.modules[module], "drift", lambda _: (1.0, 1.0))
    monkeypatch.setattr("simulator.method_list.STEPS", 3)
    line = f"methods --rounds 1 --json {tmp_path}/m.json --markdown {tmp_path}/m.md --out {tmp_path}"
    assert main([*line.split(), "--method", "images: batch"]) == 0
    out = capsys.readouterr().out
    (row,) = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert row["error"] == pytest.approx(row["simulated_step_seconds"] / row["measured_step_seconds"] - 1)
    assert f"over 1 method: {abs(row['error']):.1%}" in out and max(map(len, out.splitlines())) <= 80
    assert "| images: batch |" in (tmp_path / "m.md").read_text()
    assert {path.name for path in tmp_path.glob("*.[ps][nv]g")} == {
        "methods.png", "methods.svg", "step-images-batch.png"
    }  # fmt: skip


def test_the_markdown_table_has_a_line_for_each_method(on_cluster):
    rows = [row for row, _ in on_cluster.values()]
    head, rule, *lines = markdown(rows, "a machine").splitlines()
    assert len(lines) == len(METHODS) and {line.count("|") for line in (head, rule, *lines)} == {7}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("methods --method nothing", "unknown method 'nothing': there are data; "),
        ("methods --method data --method data", "the method data is given twice"),
        ("methods --workers 999", "this machine has .* cores"),
        ("methods --trace data", "say where to with --out"),
        ("methods --method data --out . --trace 1f1b", "--trace 1f1b: of the methods here there are data"),
        ("methods --cluster dgx-a100 --workers 64 --method 1f1b", "simulator: 1f1b: "),
        ("methods --workers 0", "not a whole number of at least 1"),
        ("methods --cluster nowhere", "no cluster 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(capsys, line, match):
    check_refused(capsys, line, match)


def test_help_names_the_methods_and_gives_two_examples(capsys):
    text = help_text(capsys, "methods")
    assert all(method.name in text for method in METHODS) and text.count("python -m simulator methods") >= 2
