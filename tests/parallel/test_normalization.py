"""Batch norm in training over several workers: each replica by its own statistics, or all by common ones."""

from functools import cache

import numpy as np
import pytest

import minidl
from minidl import data, nn, optim
from minidl.parallel import Mesh, Plan, launch, train
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.normalization import SyncBatchNorm
from simulator import Cluster, simulate

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS, TEST = data.digits()
STEPS, BATCH, LR = 6, 96, 0.1


def network(norm):
    """norm: makes the batch norm of so many channels on a mesh."""

    def build(mesh):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            norm(4, mesh),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 12, bias=False),
            norm(12, mesh),
            nn.Linear(12, 10),
        )

    return build


def own(channels, mesh):
    return nn.BatchNorm2d(channels) if channels == 4 else nn.BatchNorm1d(channels)


def common(channels, mesh):
    return SyncBatchNorm(channels, mesh.group("data", "context"))


@cache
def run(norm, plan, evaluate=None):
    return train(
        network(norm),
        DIGITS,
        plan,
        optimizer=lambda p: optim.SGD(p, lr=LR),
        loss=nn.CrossEntropyLoss(),
        batch_size=BATCH,
        steps=STEPS,
        dtype="float64",
        timeout=120,
        evaluate=evaluate,
        evaluate_every=4,
    )


def assert_same_state(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


def as_ddp_would(replicas, micro_batches):
    """The first replica's state after training in this process, by replicas that share gradients and nothing else."""
    with minidl.device("meta"):
        models = [network(own)(None) for _ in range(replicas)]
    for model in models:
        for i, block in enumerate(model.blocks):
            block.materialize(0, str(i), np.float64)
    order = data.batches.epoch_order(len(DIGITS), 0, 0)
    for step in range(STEPS):
        cuts = data.batches.split_batch(data.batches.batch_indices(order, step, BATCH), replicas, micro_batches)
        for model, parts in zip(models, cuts, strict=True):
            model.zero_grad()
            for samples in parts:
                x, y = DIGITS[samples]
                total, _ = nn.CrossEntropyLoss().sum_and_weight(model(minidl.tensor(x, "float64")), minidl.tensor(y))
                total.backward()
        for same in zip(*(model.parameters() for model in models), strict=True):
            gradient = sum(p.grad.numpy() for p in same) / BATCH
            for p in same:
                p.set_whole(p.numpy() - LR * gradient)
    return {name: tensor.numpy() for name, tensor in models[0].state_dict().items()}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(data=2, micro_batches=2),
        Plan(data=2, pipeline=2, micro_batches=2, schedule="1f1b"),
        Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
        Plan(data=2, sharding="optimizer", bucket_mb=0.001),
    ],
    ids=["data", "data and pipeline", "pipeline", "sharded"],
)
def test_replicas_use_their_own_statistics_and_the_first_ones_are_kept(plan):
    state = run(own, plan).state_dict()
    assert state["1.num_batches_tracked"] == STEPS * plan.micro_batches
    assert_same_state(state, as_ddp_would(plan.data, plan.micro_batches))


def test_an_evaluation_is_of_the_model_that_state_dict_gives():
    result = run(own, Plan(data=2), evaluate=TEST)
    model = network(own)(None).to("float64")
    model.load_state_dict(result.state_dict())
    x, y = TEST[np.arange(len(TEST))]
    with minidl.no_grad():
        logits = model.eval()(minidl.tensor(x, "float64"))
    assert result.evaluations[-1].accuracy == pytest.approx((logits.numpy().argmax(1) == y).mean())


@pytest.mark.parametrize("plan", [Plan(data=2), Plan(data=2, pipeline=2)], ids=str)
def test_with_common_statistics_every_number_of_replicas_gives_the_same_model(plan):
    got, expected = run(common, plan), run(common, Plan())
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-9)
    assert_same_state(got.state_dict(), expected.state_dict())


def test_with_their_own_statistics_replicas_give_another_model():
    with pytest.raises(AssertionError):
        assert_same_state(run(own, Plan(data=2), evaluate=TEST).state_dict(), run(common, Plan()).state_dict())


X, TARGET = np.random.default_rng(0).standard_normal((2, 10, 3, 4))
CUTS = {"even": [5], "uneven": [2], "one has nothing": [10]}


def normalized(group, cuts):
    """Output, gradient of the input, gradient of the weight and running statistics of this rank's part of X."""
    layer = SyncBatchNorm(3, group, momentum=None).to("float64")
    rank = group.rank if group else 0
    x, target = (minidl.tensor(np.split(a, cuts)[rank], "float64") for a in (X, TARGET))
    y = layer(x.requires_grad_())
    (y * target).sum().backward()
    gradients = layer.weight.grad, layer.bias.grad
    return [t.detach().numpy() for t in (y, x.grad, *gradients, layer.running_mean, layer.running_var)]


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_common_statistics_are_those_of_the_whole_batch_however_it_is_cut(cuts):
    y, grad, weight, bias, mean, variance = normalized(None, [])
    found = launch(normalized, 2, args=(cuts,))
    joined = [np.concatenate([part[i] for part in found]) for i in (0, 1)]
    np.testing.assert_allclose(joined[0], y, rtol=1e-10)
    np.testing.assert_allclose(joined[1], grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[0][2] + found[1][2], weight, rtol=1e-10)
    np.testing.assert_allclose(found[0][3] + found[1][3], bias, rtol=1e-10)
    for part in found:
        np.testing.assert_allclose(part[4], mean, rtol=1e-10)
        np.testing.assert_allclose(part[5], variance, rtol=1e-10)


def test_common_statistics_refuse_the_group_on_which_gradients_are_reduced():
    with pytest.raises(ValueError, match=r'mesh.group\("data", "context"\), .*, not mesh.group\("data"\)'):
        SyncBatchNorm(3, Mesh({"data": 2}).group("data"))


@pytest.mark.parametrize("norm", [own, common])
def test_the_simulator_prices_batch_norm(norm):
    with minidl.device("meta"):
        example = minidl.zeros(8, 1, 8, 8), minidl.zeros(8, dtype="int64")
    result = simulate(
        network(norm), Plan(data=2), Cluster.load("dgx-a100", devices=2), batch_size=BATCH, example=example
    )
    inside = [event for event in result.trace.events if event.name == "all_gather"]
    assert bool(inside) == (norm is common)


def test_a_synchronised_norm_that_leaves_out_an_axis_of_the_batch_is_refused():
    def build(mesh):
        mesh.group("expert")
        return nn.Sequential(nn.Flatten(), SyncBatchNorm(64, mesh.group("data", "context")))

    with pytest.raises(ValueError, match="SyncBatchNorm needs a group over expert too"):
        build_on_meta(build, Mesh({"data": 2, "expert": 2}))
