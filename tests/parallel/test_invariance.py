"""Plan invariance: every plan gives the losses and the parameters of the one-worker run."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.parallel import Plan, train
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import SHARDINGS
from tests.parallel import covering
from tests.parallel.covering import assert_same, case_id, cases_of, cover, difference, fields, meetings

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 4  # two epochs
BATCH = 352  # of 381 digits: the second batch of an epoch has 29 samples, fewer than 4 replicas × 8 micro-batches
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
DIGITS = data.ArrayDataset(*data.digits()[0][np.arange(BATCH + 29)])


def perceptron(dropout):
    def build(mesh):
        group = mesh.group("tensor")
        return nn.Sequential(
            nn.Flatten(),
            ColumnParallelLinear(64, 32, group),
            nn.ReLU(),
            RowParallelLinear(32, 24, group),
            nn.Dropout(dropout),
            nn.ReLU(),
            ColumnParallelLinear(24, 16, group, gather_output=True),
            nn.Dropout(dropout),
            nn.Linear(16, 10),
        )

    return build


def run(build, dataset, plan, momentum=0.0, dtype="float64", steps=STEPS, batch_size=BATCH, **options):
    return covering.run(build, dataset, plan, momentum, dtype, steps, batch_size, **options)


@cache
def one_worker(dropout, momentum, dtype):
    return run(perceptron(dropout), DIGITS, Plan(), momentum, dtype)


OPTIONS = {
    "data": (1, 2, 4),
    "pipeline": (1, 2, 4),
    "tensor": (1, 2, 4),
    "micro_batches": (1, 2, 4, 8),
    "schedule": ("1f1b", "gpipe", "naive", "interleaved", "zero-bubble"),
    "chunks": (1, 2),
    "recompute": ("none", "full"),
    "sharding": SHARDINGS,
    "momentum": (0.9, 0.0),
    "dropout": (0.2, 0.0),
    "dtype": ("float64", "float32"),
}
CASES = cases_of(OPTIONS)
COVER = cover(CASES)


def check_case(case):
    got = run(perceptron(case["dropout"]), DIGITS, Plan(**fields(case)), case["momentum"], case["dtype"])
    expected = one_worker(case["dropout"], case["momentum"], case["dtype"])
    assert_same(got, expected, TOLERANCE[case["dtype"]])


def test_the_cover_holds_every_pair_of_values_that_fits():
    assert meetings(COVER) == meetings(CASES)
    assert len(COVER) <= 24


@pytest.mark.parametrize("case", COVER, ids=case_id)
def test_every_plan_trains_as_one_worker_does(case):
    check_case(case)


MATRIX = [
    case
    for case in CASES
    if (case["pipeline"] > 1 or case["schedule"] == "1f1b") and case["momentum"] and case["dropout"]
    if case["sharding"] == "none" or (case["data"] > 1 and case["schedule"] == "1f1b")
    if case["dtype"] == "float64" or (case["chunks"] == 1 and case["recompute"] == "none")
]


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX, ids=case_id)
def test_every_plan_of_the_whole_matrix_trains_as_one_worker_does(case):
    check_case(case)


def test_the_reference_learns_something():
    digits = data.digits()[0]  # all of them
    losses, dropped = (run(perceptron(dropout), digits, Plan(), 0.9, steps=20).losses for dropout in (0.0, 0.2))
    assert losses[-1] < 0.8 * losses[0]
    assert difference(dropped, losses) > 1e-3  # and dropout does something
    start = run(perceptron(0.0), DIGITS, Plan(), steps=1, lr=1e-300)
    for momentum in (0.0, 0.9):  # in few steps too the parameters go far, beside what plans may differ by
        moved = one_worker(0.2, momentum, "float64").state_dict()
        for name, value in start.state_dict().items():
            assert difference(moved[name], value + 1e-30) > 1e-3, name


@pytest.mark.parametrize("samples", [1, 5])
def test_a_batch_smaller_than_its_parts_counts_each_sample_once(samples):
    few = data.ArrayDataset(*DIGITS[np.arange(8 + samples)])
    options = dict(steps=6, batch_size=8, momentum=0.9)
    expected = run(perceptron(0.2), few, Plan(), **options)
    for plan in (Plan(data=2, micro_batches=4), Plan(data=2, pipeline=2, micro_batches=2)):
        assert_same(run(perceptron(0.2), few, plan, **options), expected, 1e-10)


def test_a_data_set_smaller_than_a_batch_works():
    few = data.ArrayDataset(*DIGITS[np.arange(3)])
    plan = Plan(data=2, micro_batches=2)
    assert_same(run(perceptron(0), few, plan, batch_size=64), run(perceptron(0), few, Plan(), batch_size=64), 1e-10)


def convolutional(mesh):
    return models.cnn(1, 8, widths=(4, 6, 8))


@pytest.mark.parametrize("plan", [Plan(data=2, pipeline=2), Plan(pipeline=3, micro_batches=4)], ids=str)
def test_a_convolutional_network_trains_as_on_one_worker(plan):
    options = dict(momentum=0.9, batch_size=240)
    assert_same(run(convolutional, DIGITS, plan, **options), run(convolutional, DIGITS, Plan(), **options), 1e-10)


def transformer(mesh):
    return models.gpt(layers=2, hidden=16, heads=4, vocabulary=12, sequence=6, mesh=mesh, dropout=0.1)


@cache
def sentences():
    text = np.random.default_rng(0).integers(0, 12, (50, 7))
    return data.ArrayDataset(text[:, :-1], text[:, 1:])


MIXED = Plan(data=2, tensor=2, pipeline=2, micro_batches=4)


@pytest.mark.parametrize("plan", [Plan(tensor=2, micro_batches=2), MIXED, Plan(tensor=4)], ids=str)
def test_a_transformer_trains_as_on_one_worker(plan):
    options = dict(momentum=0.9, batch_size=16, lr=0.5)
    expected = run(transformer, sentences(), Plan(), **options)
    assert_same(run(transformer, sentences(), plan, **options), expected, 1e-10)


def marked(share):
    """The digits, with this share of the labels made -1."""
    x, y = DIGITS[np.arange(len(DIGITS))]
    return data.ArrayDataset(x, np.where(np.random.default_rng(0).random(len(y)) < share, -1, y))


PLAIN = nn.CrossEntropyLoss(ignore_index=-1)
WEIGHTED = nn.CrossEntropyLoss(minidl.arange(1.0, 11.0), ignore_index=-1, label_smoothing=0.1)


@pytest.mark.parametrize("loss", [PLAIN, WEIGHTED], ids=["plain", "weighted"])
def test_class_weights_and_ignored_labels_weigh_the_same_under_every_plan(loss):
    some = marked(0.4)
    options = dict(steps=7, batch_size=24, momentum=0.9)
    expected = run(perceptron(0), some, Plan(), loss=loss, evaluate=some, **options)
    assert difference(run(perceptron(0), DIGITS, Plan(), **options).losses, expected.losses) > 1e-2
    for plan in (Plan(data=2, micro_batches=4), Plan(pipeline=2, data=2, micro_batches=3)):
        got = run(perceptron(0), some, plan, loss=loss, evaluate=some, **options)
        assert_same(got, expected, 1e-10)
        assert got.evaluations[0].accuracy == expected.evaluations[0].accuracy
    model = perceptron(0)(Plan().mesh(0))
    model.load_state_dict(expected.state_dict())
    x, y = some[np.arange(len(some))]
    right = model(minidl.tensor(x)).numpy().argmax(1) == y
    assert expected.evaluations[0].accuracy == pytest.approx(right.sum() / (y >= 0).sum(), abs=1e-3)


def test_a_batch_without_any_label_that_counts_changes_nothing():
    none = marked(1)
    got = run(perceptron(0), none, Plan(data=2), batch_size=24, steps=2, loss=PLAIN, evaluate=none)
    start = run(perceptron(0), none, Plan(), batch_size=24, steps=1, lr=1e-300, loss=PLAIN)
    assert np.isnan(got.losses).all() and got.evaluations[0].accuracy == 0
    for name, value in start.state_dict().items():
        np.testing.assert_array_equal(got.state_dict()[name], value)


@pytest.mark.parametrize("plan", [Plan(data=3), Plan(data=2, pipeline=2, micro_batches=2)], ids=str)
def test_an_optimizer_with_state_is_the_same_when_its_replicas_share_it(plan):
    options = dict(optimizer=lambda p: optim.AdamW(p, lr=0.01), loss=nn.CrossEntropyLoss(), batch_size=348, steps=STEPS)
    whole, *shared = (
        train(perceptron(0.2), DIGITS, replace(plan, sharding=sharding, bucket_mb=0.004), dtype="float64", **options)
        for sharding in SHARDINGS
    )
    for one in shared:
        assert_same(one, whole, 1e-12)


@pytest.mark.parametrize("cls", [optim.LARS, optim.LAMB])
def test_the_norms_of_parameters_are_those_of_the_whole_wherever_the_parts_lie(cls):
    lr = 1.0 if cls is optim.LARS else 0.02
    options = dict(
        optimizer=lambda p: cls(p, lr=lr, weight_decay=0.01), loss=nn.CrossEntropyLoss(), batch_size=BATCH, steps=STEPS,
        clip_norm=0.5, dtype="float64", timeout=120,
    )  # fmt: skip
    expected = train(perceptron(0.2), DIGITS, Plan(), **options)
    for plan in (
        Plan(data=2, micro_batches=2),
        Plan(tensor=4),
        Plan(data=4, sharding="optimizer"),
        Plan(data=2, tensor=2, sharding="optimizer"),
        Plan(data=2, tensor=2, pipeline=2, sharding="optimizer"),
        Plan(data=2, tensor=2, micro_batches=2, sharding="gradients"),
        Plan(data=2, pipeline=2, sharding="parameters"),
    ):
        assert_same(train(perceptron(0.2), DIGITS, replace(plan, bucket_mb=0.001), **options), expected, 1e-10)


def test_groups_of_parameters_by_name_a_schedule_and_frozen_parameters_are_the_same_under_every_plan():
    def build(mesh):
        model = perceptron(0.0)(mesh)
        for parameter in model[1].parameters():
            parameter.requires_grad_(False)
        return model

    def grouped(parameters):
        biases = [p for p in parameters if p.name.endswith("bias")]
        others = [p for p in parameters if not p.name.endswith("bias")]
        groups = [{"params": others, "weight_decay": 0.1}, {"params": biases, "lr": 0.05}]
        return optim.AdamW(groups, lr=0.01, weight_decay=0.0)

    options = dict(
        optimizer=grouped, loss=nn.CrossEntropyLoss(), batch_size=BATCH, steps=10, dtype="float64", timeout=120,
        lr_schedule=optim.lr_schedules.linear(1.0, 0.1, 9),
    )  # fmt: skip
    expected = train(build, DIGITS, Plan(), **options)
    with minidl.device("meta"):
        start = build(Mesh({}))
    start.materialize(0, dtype="float64")
    np.testing.assert_array_equal(expected.state_dict()["1.weight"], start[1].weight.numpy())
    assert difference(expected.state_dict()["8.bias"], start[8].bias.numpy()) > 0.1
    for plan in (Plan(data=2, tensor=2, sharding="optimizer"), Plan(data=2, pipeline=3, micro_batches=2)):
        assert_same(train(build, DIGITS, plan, **options), expected, 1e-9)


class Unused(nn.Module):
    """A block with a parameter that its output does not depend on."""

    def __init__(self):
        self.weight = nn.Parameter((5, 7), init=nn.init.constant(1.0))

    def forward(self, x):
        return x


def test_parameters_without_a_gradient_and_stages_without_parameters_may_be_sharded():
    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), Unused(), nn.ReLU(), nn.Linear(12, 10))

    plan = Plan(data=2, pipeline=5, sharding="optimizer")
    for optimizer in (lambda p: optim.SGD(p, lr=0.3, momentum=0.9), lambda p: optim.LAMB(p, lr=0.01)):
        options = dict(optimizer=optimizer, loss=nn.CrossEntropyLoss(), batch_size=96, steps=STEPS, dtype="float64")
        sharded, whole = (train(build, DIGITS, p, timeout=120, **options) for p in (plan, Plan()))
        assert_same(sharded, whole, 1e-10)


class Cut(nn.Module):
    """A block through which no gradient goes back."""

    def forward(self, x):
        return (x > 0).to(x.dtype)


def test_no_gradient_comes_back_through_a_block_that_cuts_it_off_whatever_the_stage():
    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), Cut(), nn.Linear(12, 10))

    options = dict(
        optimizer=lambda p: optim.SGD(p, lr=0.3), loss=nn.CrossEntropyLoss(), batch_size=96, steps=STEPS,
        dtype="float64",
    )  # fmt: skip
    expected = train(build, DIGITS, Plan(), **options)
    with minidl.device("meta"):
        start = build(Mesh({}))
    start.materialize(0, dtype="float64")
    np.testing.assert_array_equal(expected.state_dict()["1.weight"], start[1].weight.numpy())
    for pipeline in 2, 5:
        assert_same(train(build, DIGITS, Plan(pipeline=pipeline), **options), expected, 1e-10)


def test_clipping_schedules_and_evaluation_are_the_same_under_every_plan():
    options = dict(
        momentum=0.9,
        clip_norm=0.05,
        lr_schedule=lambda step: 1.0 / (1 + step / 10),
        evaluate=data.digits()[1],
        evaluate_every=3,
    )
    expected = run(perceptron(0.2), DIGITS, Plan(), **options)
    plain = run(perceptron(0.2), DIGITS, Plan(), **(options | {"clip_norm": None}))
    assert difference(plain.losses, expected.losses) > 1e-3  # the bound was felt
    assert [e.step for e in expected.evaluations] == [3, 4]
    for plan in (
        Plan(data=2, micro_batches=2),
        Plan(pipeline=2, tensor=2, micro_batches=2),
        Plan(tensor=2),
        Plan(data=2, pipeline=2, schedule="gpipe"),
        Plan(data=2, tensor=2, sharding="optimizer"),
    ):
        got = run(perceptron(0.2), DIGITS, replace(plan, bucket_mb=0.001), **options)
        assert_same(got, expected, 1e-10)
        for ours, theirs in zip(got.evaluations, expected.evaluations, strict=True):
            assert (ours.step, ours.accuracy) == (theirs.step, theirs.accuracy)
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-10)


def test_random_transforms_are_drawn_anew_each_epoch_and_alike_under_every_plan():
    noisy = data.TransformedDataset(data.Subset(DIGITS, np.arange(64)), lambda x, g: x + g.standard_normal(x.shape))

    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))

    def losses(plan):  # an epoch is one batch, and the model stays as it is: only the noise differs
        options = dict(loss=nn.CrossEntropyLoss(), batch_size=64, steps=3, dtype="float64", timeout=120)
        return train(build, noisy, plan, optimizer=lambda p: optim.SGD(p, lr=0.0), **options).losses

    expected = losses(Plan())
    assert len({round(loss, 6) for loss in expected}) == 3
    np.testing.assert_allclose(losses(Plan(data=2, pipeline=2, micro_batches=2)), expected, rtol=1e-10)
