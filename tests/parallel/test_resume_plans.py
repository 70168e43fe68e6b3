"""A training goes on under another plan to the losses and parameters of the run that was never interrupted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.moe_gpt import MoELoss
from minidl.nn import init
from minidl.nn.parameter import Buffer
from minidl.parallel import Plan, rank_state, train
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear
from minidl.parallel.mesh import Mesh

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.ArrayDataset(*data.digits()[0][np.arange(60)])  # 3 batches of 24, the last of them short
TEXT = np.random.default_rng(0).integers(12, size=(60, 9))
TOKENS = data.ArrayDataset(TEXT[:, :-1], TEXT[:, 1:])


def perceptron(mesh):
    """The first layer is so small that one of two shares has nothing of it."""
    group = mesh.group("tensor")
    return nn.Sequential(
        nn.Flatten(), ColumnParallelLinear(64, 12, group), nn.Tanh(), RowParallelLinear(12, 40, group),
        nn.Dropout(0.2), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 10),
    )  # fmt: skip


def partly_frozen(mesh):
    model = perceptron(mesh)
    for block in (1, 5):
        for parameter in model.blocks[block].parameters():
            parameter.requires_grad_(False)
    return model


def gpt(mesh):
    return models.gpt(layers=2, hidden=8, heads=4, vocabulary=12, sequence=8, mesh=mesh, dropout=0.1)


def mixture(mesh):
    return models.moe_gpt(
        layers=2, hidden=8, heads=4, vocabulary=12, sequence=8, experts=4, mesh=mesh, dropout=0.1, tied=True
    )


def relay(folder, build, dataset, optimizer, plans):
    """Train one step under each plan in turn, each from the file of the one before, and all steps under one worker.

    At the end the files say the same, the optimizer's state included; and so do all losses, and `Run.state_dict`, but
    for what a rank's experts have `dropped` of its own samples.
    """
    options = dict(
        optimizer=optimizer, loss=MoELoss() if build is mixture else nn.CrossEntropyLoss(), batch_size=24,
        dtype="float64", clip_norm=1.0, timeout=120, lr_schedule=lambda step: 0.9**step,
    )  # fmt: skip
    alone = train(build, dataset, Plan(), steps=len(plans), save=folder / "alone", **options)
    losses, path = [], None
    for step, plan in enumerate(plans, 1):
        run = train(build, dataset, plan, steps=step, save=folder / "relay", resume=path, **options)
        losses, path = losses + run.losses, folder / "relay"
    np.testing.assert_allclose(losses, alone.losses, rtol=1e-10)
    assert_close(run.state_dict(), alone.state_dict())
    theirs, ours = (minidl.load(folder / name)["optimizer"]["state"] for name in ("alone", "relay"))
    assert list(ours) == list(theirs)
    for name, state in theirs.items():
        assert_close(ours[name], state)


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name.endswith("dropped"):
            continue
        np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-12, err_msg=name)


PLANS = (
    Plan(),
    Plan(data=2, sharding="gradients", micro_batches=2, bucket_mb=0.004),
    Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
    Plan(data=2, tensor=2, sharding="optimizer", bucket_mb=0.004),
    Plan(data=3, sharding="parameters", bucket_mb=0.004),
)
OPTIMIZERS = {
    "momentum": lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.01),
    "lamb": lambda parameters: optim.LAMB(parameters, lr=0.01, weight_decay=0.1),
    "lars": lambda parameters: optim.LARS(parameters, lr=0.1),
    "adafactor": lambda parameters: optim.Adafactor(parameters, lr=0.1, eps=(1e-3, 1e-3)),
    "muon": lambda parameters: optim.Muon(parameters, lr=0.1),
}

SHARED = ("momentum", "adam", "lamb", "lars")  # the others take whole parameters


@pytest.mark.parametrize(("stride", "optimizer"), list(enumerate(SHARED, 1)))
def test_from_each_plan_a_training_goes_on_under_each_other(tmp_path, stride, optimizer):
    """With strides of 1 to 4 over a circle of five plans each follows each other one once."""
    plans = [PLANS[leg * stride % len(PLANS)] for leg in range(len(PLANS) + 1)]
    relay(tmp_path, perceptron, DIGITS, OPTIMIZERS[optimizer], plans)


def test_a_fused_matrix_of_queries_keys_and_values_is_cut_anew(tmp_path):
    plans = [
        Plan(tensor=2),
        Plan(data=2, sharding="optimizer"),
        Plan(tensor=4),
        Plan(data=2, tensor=2, sharding="optimizer"),
        Plan(pipeline=2, tensor=2, micro_batches=2),
    ]
    relay(tmp_path, gpt, TOKENS, OPTIMIZERS["lamb"], plans)


@pytest.mark.parametrize(
    ("build", "optimizer", "split"),
    [(gpt, "adafactor", Plan(data=2, context=2)), (mixture, "muon", Plan(data=2, expert=2))],
)
def test_optimizers_that_take_whole_parameters_go_on_where_none_is_split(tmp_path, build, optimizer, split):
    relay(tmp_path, build, TOKENS, OPTIMIZERS[optimizer], [split, Plan(pipeline=2, micro_batches=2), split])


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(tensor=2), "takes whole parameters, and 0.token.weight is split over tensor"),
        (Plan(data=2, sharding="optimizer"), 'sharding="optimizer" has each rank update shares of parameters'),
    ],
)
def test_optimizers_that_take_whole_parameters_refuse_parts(optimizer, plan, message):
    with pytest.raises(ValueError, match=message):
        train(
            gpt, TOKENS, plan, optimizer=OPTIMIZERS[optimizer], loss=nn.CrossEntropyLoss(), batch_size=24, steps=1
        )  # fmt: skip


SEQUENCES = (
    Plan(),
    Plan(tensor=2, context=2, sequence_parallel=True, sharding="optimizer", bucket_mb=0.001),
    Plan(pipeline=2, tensor=2, sequence_parallel=True, micro_batches=2),
    Plan(data=2, context=2, sharding="optimizer"),
    Plan(pipeline=2, context=2, micro_batches=2, schedule="zero-bubble"),
)
EXPERTS = (
    Plan(),
    Plan(data=2, expert=2, sharding="parameters", bucket_mb=0.001),
    Plan(tensor=2, expert=2, sequence_parallel=True),
    Plan(expert=4, sharding="optimizer"),
    Plan(pipeline=2, expert=2, micro_batches=2),
)


@pytest.mark.parametrize(
    ("build", "circle", "stride", "optimizer"),
    [
        (gpt, SEQUENCES, 1, "lamb"),
        (gpt, SEQUENCES, 2, "lars"),
        (gpt, SEQUENCES, 3, "momentum"),
        (mixture, EXPERTS, 1, "lars"),
        (mixture, EXPERTS, 2, "lamb"),
        (mixture, EXPERTS, 4, "adam"),
    ],
)
def test_parts_of_sequences_slices_and_experts_are_shared_anew(tmp_path, build, circle, stride, optimizer):
    plans = [circle[leg * stride % len(circle)] for leg in range(len(circle) + 1)]
    relay(tmp_path, build, TOKENS, OPTIMIZERS[optimizer], plans)


def test_what_is_frozen_stays_so_on_whatever_stage_it_is(tmp_path):
    sharded = Plan(data=2, sharding="optimizer")
    plans = [Plan(pipeline=3), sharded, Plan(), replace(sharded, pipeline=2)]
    relay(tmp_path, partly_frozen, DIGITS, OPTIMIZERS["adam"], plans)


def test_a_file_is_taken_whatever_plan_it_says_it_was_written_under(tmp_path):
    path = tmp_path / "x"
    options = dict(
        optimizer=OPTIMIZERS["momentum"], loss=nn.CrossEntropyLoss(), batch_size=24, dtype="float64", timeout=120
    )
    train(perceptron, DIGITS, Plan(), steps=1, save=path, **options)
    minidl.save(minidl.load(path) | {"plan": {"data": 1}}, path)  # as before plans had all their fields
    again = train(perceptron, DIGITS, Plan(), steps=2, resume=path, **options)
    assert again.losses == train(perceptron, DIGITS, Plan(), steps=2, **options).losses[1:]


def test_a_replica_that_the_file_lacks_has_the_running_statistics_of_the_first():
    first, second = ({"mean": minidl.tensor([mean])} for mean in (0.0, 1.0))
    saved = {"model": first, "replicas": [second], "optimizer": {"state": {}}}
    found = []
    for replica in range(4):
        mean = Buffer((1,), init=init.constant(-1.0))
        mean.name = "mean"
        stage = SimpleNamespace(parameters=[], buffers=[mean])
        rank_state.restore(saved, stage, None, Mesh({"data": 4}, replica))
        found.append(mean.item())
    assert found == [0, 1, 0, 0]
