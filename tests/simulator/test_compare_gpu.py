"""compare() on a GPU, here its emulator: plans of one worker, trained on it and simulated as it was calibrated."""

import json
import sys

import pytest

from minidl import nn
from minidl.parallel import Plan
from minidl.trace import COPY, Trace
from simulator.__main__ import main
from simulator.compare import compare
from simulator.experiments import MODELS, Experiment, experiments
from simulator.plans_to_try import GPU_PLANS, QUICK_GPU_PLANS
from tests.simulator.command import check_refused
from tests.simulator.hand_made import made_up_gpu

pytestmark = pytest.mark.usefixtures("warm_workers")

COMMAND = sys.modules["simulator.commands.compare"]
PLANS = (Plan(), Plan(micro_batches=2))


def build(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


TINY = Experiment("tiny net", build, PLANS, steps=3, batch_size=4)


@pytest.fixture(scope="module")
def comparison(warm_workers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["simulator.calibrate"], "launch", None)  # no probe of the cores is run
        return compare(made_up_gpu(), chosen=[TINY], rounds=1)


def test_a_row_for_each_plan_has_a_step_measured_on_the_gpu_and_one_simulated(comparison):
    assert [row.plan for row in comparison.rows] == [str(plan) for plan in PLANS]
    assert comparison.machine["gpu"] == "emulated" and not comparison.busy
    for row, run, prediction in zip(comparison.rows, comparison.runs, comparison.predictions, strict=True):
        assert (row.workers, row.oversubscribed, row.drift) == (1, False, 1.0)
        assert row.measured_step_seconds > 0 and row.simulated_step_seconds == prediction.step_seconds > 0
        assert list(run.program[0]) == list(prediction.program[0])
    assert comparison.rows[0].measured_speedup == comparison.rows[0].simulated_speedup == 1


def test_copies_are_a_lane_of_the_measured_trace_alone(comparison, tmp_path):
    traces = comparison.traces()
    assert len(traces) == 2 * len(PLANS)
    for name, trace in traces.items():
        trace.save(tmp_path / name)
        copies = [e.name for e in Trace.load(tmp_path / name).events if e.lane == COPY]
        assert bool(copies) == (trace.kind == "measured")
        if copies:
            assert {"input0 to the device's format", "input0 to the device", "loss0 to the host", "loss0 read"} <= {
                *copies
            }


def test_a_plan_of_two_workers_is_refused_before_anything_is_trained(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["simulator.compare"], "train", None)
    with pytest.raises(ValueError, match="^data 2 needs 2 devices, emulated has 1$"):
        compare(made_up_gpu(), chosen=[Experiment("m", build, (Plan(), Plan(data=2)), 3, 4)], rounds=1)
    monkeypatch.setattr(COMMAND, "check_measurable", lambda device: None)
    check_refused(
        capsys, "compare --device cuda --plan data=2", "device cuda trains on one worker yet, the plan data 2"
    )


@pytest.mark.parametrize(("quick", "plans"), [(False, GPU_PLANS), (True, QUICK_GPU_PLANS)])
def test_the_usual_plans_of_a_gpu_have_one_worker_and_labels_of_their_own(quick, plans):
    assert all(plan.workers == 1 for plan in plans) and len({plan.label for plan in plans}) == len(plans)
    for experiment in experiments(MODELS, quick=quick, device="cuda"):
        assert experiment.plans[0] == Plan() and set(experiment.plans) <= set(plans)
    assert {plan for experiment in experiments(quick=quick, device="cuda") for plan in experiment.plans} == set(plans)


def test_the_command_writes_pictures_rows_and_traces_and_prints_a_table(comparison, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(COMMAND, "check_measurable", lambda device: None)
    monkeypatch.setattr(COMMAND, "calibration", lambda *given: asked.append(given[-1]) or made_up_gpu())
    monkeypatch.setattr(COMMAND, "experiments", lambda *given: asked.append(given[-1]) or (TINY,))
    monkeypatch.setattr(COMMAND, "compare", lambda *_: comparison)
    assert main(["compare", "--device", "cuda", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert asked == ["cuda", "cuda"]
    for piece in ("tiny net, 4 samples a step", "one worker ×2", "one worker, on the GPU 2", "Copies between host and"):
        assert piece in printed
    for piece in ("cores", "probe", "null model:"):
        assert piece not in printed
    assert (tmp_path / "compare.png").stat().st_size > 10_000 and (tmp_path / "compare.svg").exists()
    assert len(list(tmp_path.glob("trace-*.json"))) == 2 * len(PLANS)
    document = json.loads((tmp_path / "compare.json").read_text())
    assert document["machine"]["gpu"] == "emulated" and len(document["rows"]) == len(PLANS)
