"""What is compared, by default and when asked."""

import pytest

from minidl import models, nn
from minidl.commands.arguments import Refused
from minidl.parallel import Plan
from simulator.experiments import CNN, MODELS, PERCEPTRON, WARM_UP, Experiment, experiments, with_one_worker
from simulator.plans_to_try import FEW_PLANS, PLANS, QUICK_PLANS


def test_by_default_two_models_are_compared_with_1_2_and_4_workers_on_every_axis():
    perceptron, convolutions = experiments()
    assert (perceptron.plans, convolutions.plans) == (PLANS, FEW_PLANS)
    assert convolutions.name == CNN
    assert {plan.workers for plan in PLANS} == {1, 2, 4}
    for axis in ("data", "pipeline", "tensor"):
        assert any(getattr(plan, axis) > 1 for plan in PLANS)
    assert PLANS[0].workers == FEW_PLANS[0].workers == QUICK_PLANS[0].workers == 1  # what speedups refer to


def test_quick_is_one_model_under_few_plans_one_of_them_with_more_workers_than_two_cores():
    (experiment,) = experiments(quick=True)
    assert experiment.plans == QUICK_PLANS and experiment.name == experiments()[0].name
    assert {plan.workers for plan in QUICK_PLANS} == {1, 2, 4}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_tried_under_the_plans_that_fit_it(name):
    (experiment,) = experiments([name])
    plans = experiment.plans
    ranks = {PERCEPTRON: 4, "mlp-digits": 4, "gpt-tiny": 4, "moe-tiny": 4, "cnn-digits": 2}.get(name, 1)
    assert plans == tuple(plan for plan in PLANS if plan.tensor <= ranks)
    for plan in plans:
        experiment.check(plan)


def test_plans_that_are_given_replace_those_by_default_and_one_worker_comes_first():
    two, split, several = Plan(data=2), Plan(tensor=2), Plan(micro_batches=4)
    (experiment,) = experiments(plans=[two, split])
    assert experiment.plans == (Plan(), two, split) and experiment.name == experiments()[0].name
    assert with_one_worker([two, several, split]) == (several, two, split)
    assert experiments([CNN], [two], quick=True)[0].plans == (Plan(), two)


@pytest.mark.parametrize(
    ("names", "plans", "reason"),
    [
        ([CNN], [Plan(context=2)], "cnn-digits cannot be trained under the plan context 2: context=2, but the builder"),
        ([], [Plan(data=3)], "the plan data 3: batch_size 256 is not divisible by data=3 × micro_batches=1"),
        ([], [Plan(pipeline=99)], "pipeline=99 needs at least 99 blocks, the model has"),
        ([], [Plan(tensor=3)], "512 is not divisible by tensor=3"),
        ([], [Plan(data=2), Plan(tensor=2), Plan(data=2)], "the plan data 2 is given twice"),
        ([], [Plan(data=2), Plan(data=2, schedule="gpipe")], "the plan data 2 is given twice"),  # nothing is scheduled
        ([PERCEPTRON, PERCEPTRON], [], "the model mlp is given twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(names, plans, reason):
    with pytest.raises(ValueError, match=reason):
        experiments(names, plans)


def test_plans_that_differ_in_their_buckets_alone_are_two():
    plans = [Plan(data=2), Plan(data=2, bucket_mb=0.25)]
    assert experiments(plans=plans)[0].plans[1:] == tuple(plans)
    assert str(plans[1]) == "data 2, buckets of 0.25 MiB"


NET = """
import numpy as np
from minidl import models, nn
from minidl.data import ArrayDataset

def build(mesh):
    assert mesh.size("pipeline") < 3, "too deep"
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))

def data():
    return [ArrayDataset(np.zeros((n, 3), "f4"), np.zeros((n, 1), "f4")) for n in (SAMPLES, 1)]

loss = nn.MSELoss()
"""


def test_a_model_of_ones_own_is_compared_on_its_own_data_and_refused_where_that_cannot_be(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(NET.replace("SAMPLES", "300"))
    name = f"{file}:build"
    (experiment,) = experiments([name], [Plan(data=2)])
    assert experiment.name == name and len(experiment.train_set) == 300 and isinstance(experiment.loss, nn.MSELoss)
    with pytest.raises(Refused, match="net.py, line 7: AssertionError: too deep"):
        experiments([name], [Plan(pipeline=3)])
    file.write_text(NET.replace("SAMPLES", "200"))
    with pytest.raises(ValueError, match="a step takes 256 samples, the data set has 200"):
        experiments([name], [Plan(data=2)])
    with pytest.raises(ValueError, match="unknown model 'lenet': there are mlp, mlp-digits"):
        experiments(["lenet"])


@pytest.mark.parametrize("quick", [False, True])
def test_without_plans_a_model_that_one_worker_cannot_train_is_refused(tmp_path, quick):
    file = tmp_path / "net.py"
    file.write_text(NET.replace("SAMPLES", "200"))
    reason = "under the plan one worker: a step takes 256 samples, the data set has 200"
    with pytest.raises(ValueError, match=reason):
        experiments([f"{file}:build"], quick=quick)
    file.write_text(NET.replace("SAMPLES", "300").replace("< 3", "< 1"))
    with pytest.raises(Refused, match="net.py, line 7: AssertionError: too deep"):
        experiments([f"{file}:build"], quick=quick)


def test_a_plan_by_default_that_the_code_of_a_model_of_ones_own_refuses_is_left_out(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(NET.replace("SAMPLES", "300").replace("< 3", "< 2"))
    (experiment,) = experiments([f"{file}:build"])
    assert experiment.plans == (Plan(), Plan(data=2), Plan(data=2, sharding="optimizer"), Plan(data=4))
    with pytest.raises(Refused, match="net.py, line 7: AssertionError: too deep"):
        experiment.profile(Plan(pipeline=2))


def test_one_worker_is_checked_also_where_it_is_added_to_the_plans_that_are_given(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(NET.replace("SAMPLES", "300").replace('mesh.size("pipeline") < 3', 'mesh.size("data") == 2'))
    with pytest.raises(Refused, match="net.py, line 7: AssertionError: too deep"):
        experiments([f"{file}:build"], [Plan(data=2)])


def test_a_run_of_no_more_steps_than_are_left_untimed_is_refused():
    with pytest.raises(ValueError, match="steps=2: the first 2 are not timed"):
        Experiment("short", models.builder("mlp-digits"), steps=WARM_UP)
