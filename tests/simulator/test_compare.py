"""compare(): what it measures and simulates, and the numbers that are made of it."""

import json
import math
import statistics
import sys
from dataclasses import asdict, replace

import pytest

from minidl.parallel import Plan
from minidl.trace import Trace
from simulator.compare import LEAST_STEPS, Comparison, Row, compare
from simulator.experiments import WARM_UP, Experiment
from tests.simulator.comparisons import PLANS, TINY, tiny_comparison
from tests.simulator.hand_made import made_up

pytestmark = pytest.mark.usefixtures("warm_workers")

COMPARE = sys.modules["simulator.compare"]
KEYS = {  # on which programs rely
    "model", "plan", "workers", "oversubscribed", "measured_step_seconds", "simulated_step_seconds", "measured_speedup",
    "simulated_speedup", "measured_bubble_fraction", "simulated_bubble_fraction",
    "measured_exposed_communication_seconds", "simulated_exposed_communication_seconds", "drift",
}  # fmt: skip


@pytest.fixture(scope="module")
def comparison(warm_workers):
    told = []
    result = tiny_comparison(lambda *progress: told.append(progress), rounds=1)
    assert [done for _, done, _ in told] == list(range(4)) and {total for *_, total in told} == {4}
    return result


def row(measured=1.0, simulated=1.0, oversubscribed=False, workers=1, null=1.0, plan="p", **changes) -> Row:
    made = Row("m", plan, workers, oversubscribed, measured, simulated, 1, 1, 0.0, 0.0, 0.0, 0.0, 1.0, null, 1e6)
    return replace(made, **changes)


def test_a_comparison_has_a_row_for_each_plan_with_what_was_measured_and_simulated(comparison):
    assert [row.plan for row in comparison.rows] == [str(plan) for plan in PLANS]
    assert [row.workers for row in comparison.rows] == [1, 2, 2, 2]
    cores = comparison.machine["cores"]
    for row, run, prediction in zip(comparison.rows, comparison.runs, comparison.predictions, strict=True):
        assert row.oversubscribed == (row.workers > cores) and row.model == "tiny net"
        assert (
            row.measured_step_seconds == statistics.median(run.step_times[WARM_UP:])
            and len(run.losses) == TINY[0].steps
        )
        assert row.simulated_memory_bytes == prediction.memory_bytes
        assert [run.program[r] for r in range(row.workers)] == [prediction.program[r] for r in range(row.workers)]
        for name, value in asdict(row).items():
            if isinstance(value, float):
                assert math.isfinite(value) and value >= 0, name
    first = comparison.rows[0]
    assert first.measured_speedup == first.simulated_speedup == 1
    assert first.measured_exposed_communication_seconds < first.measured_step_seconds


def test_the_null_model_divides_the_step_of_one_worker_by_the_workers_that_run_at_once(comparison):
    one = comparison.rows[0].measured_step_seconds
    for row in comparison.rows:
        assert row.null_step_seconds == one / min(row.workers, comparison.machine["cores"])
    assert comparison.rows[0].null_error == 0


def test_compare_json_has_the_keys_that_programs_rely_on_and_the_traces_open_again(comparison, tmp_path):
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
        assert {"M", "X"} <= {row["ph"] for row in rows} <= {"M", "X", "s", "f"}  # arrows join messages
        names = [(r["pid"], r["args"]["name"]) for r in rows if r["name"] == "process_name"]
        assert names == [(rank, f"rank {rank}") for rank in trace.ranks]


def test_errors_are_means_over_the_rows_within_the_cores_and_over_the_others():
    rows = [row(1.0, 1.1), row(2.0, 1.4, workers=2, null=1.0), row(1.0, 1.5, True, 4, null=0.8)]
    made = Comparison({}, rows, [], [])
    assert made.mean_error(False) == pytest.approx((0.1 + 0.3) / 2)
    assert made.mean_error(True) == pytest.approx(0.5)
    assert Comparison({}, rows[:2], [], []).mean_error(True) is None
    assert rows[1].error == pytest.approx(-0.3)


def test_beside_the_null_model_stand_the_errors_of_the_rows_of_several_workers():
    rows = [row(1.0, 1.1), row(2.0, 1.4, workers=2, null=1.0), row(1.0, 1.5, True, 4, null=0.8)]
    made = Comparison({}, rows, [], [])
    assert made.mean_errors_of_several(False) == pytest.approx((0.3, 0.5))
    assert made.mean_errors_of_several(True) == pytest.approx((0.5, 0.2))
    assert Comparison({}, rows[:1], [], []).mean_errors_of_several(False) == (None, None)


def test_the_shares_of_a_step_are_computing_exposed_communication_and_idle():
    made = row(2.0, 4.0, measured_bubble_fraction=0.25, measured_exposed_communication_seconds=0.5)
    assert made.shares("measured") == (0.5, 0.25, 0.25) and made.shares("simulated") == (1, 0, 0)


def test_names_of_traces_differ_also_where_those_of_models_are_alike(comparison):
    first = comparison.rows[0]
    rows = [replace(first, model=name) for name in ("net.py:a_b", "net.py:a-b", "net.py:A b 2", "other")]
    plain = "net.py-a-b"
    assert [name.removeprefix("trace-") for name in replace(comparison, rows=rows).traces()] == [
        f"{name}-{kind}.json"
        for name in (f"{plain}-one-worker", f"{plain}-one-worker-2", f"{plain}-2-one-worker", "other-one-worker")
        for kind in ("measured", "simulated")
    ]


def test_a_row_shows_the_median_run_and_a_long_step_is_run_less_often(monkeypatch, comparison):
    calls = []

    def train(*_, steps, **__):
        calls.append(steps)
        seconds = [3.0, 1.0, 2.0, 5.0][len(calls) - 1]
        return replace(comparison.runs[0], step_times=[99.0] * WARM_UP + [seconds])

    monkeypatch.setattr(COMPARE, "train", train)
    monkeypatch.setattr(COMPARE, "RUN_SECONDS", 0.0)
    drifts = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(COMPARE, "drift", lambda _: (next(drifts), 9.0))
    (row,) = compare(made_up(), chosen=[Experiment("m", TINY[0].build, (Plan(),))], rounds=3).rows
    assert calls == [LEAST_STEPS] * 3 and row.measured_step_seconds == 2.0 and row.drift == 2.0


def test_rows_of_several_workers_follow_the_speed_of_all_cores_and_that_of_one_that_of_one(monkeypatch, comparison):
    monkeypatch.setattr(COMPARE, "train", lambda *_, **__: comparison.runs[0])
    monkeypatch.setattr(COMPARE, "drift", lambda _: (2.0, 3.0))
    found = compare(made_up(), chosen=[Experiment("m", TINY[0].build, (Plan(), Plan(data=2)))], rounds=1)
    assert [row.drift for row in found.rows] == [2.0, 3.0]
    predicted = [p.step_seconds for p in found.predictions]
    assert [row.simulated_step_seconds for row in found.rows] == [2 * predicted[0], 3 * predicted[1]]
