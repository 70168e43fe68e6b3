"""What is computed again, and a backward in halves, change no bit of what is trained."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.nn.parameter import Buffer
from minidl.parallel import Plan, train
from minidl.parallel.prepare import prepare

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]
BATCH_SIZE, STEPS = 16, 4


@cache
def sentences():
    text = np.random.default_rng(0).integers(0, 12, (50, 7))
    return data.ArrayDataset(text[:, :-1], text[:, 1:])


def perceptron(mesh):
    """Dropout in a bucket with others and in one of its own, two in a block; statistics in several blocks."""
    twice = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 24), nn.Dropout(0.2), nn.BatchNorm1d(24))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.Dropout(0.3), nn.ReLU(), twice, nn.Linear(24, 10)
    )


def cnn(mesh):
    first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Dropout2d(0.2), nn.ReLU())
    return nn.Sequential(first, second, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 10))


def gpt(mesh):
    return models.gpt(layers=2, hidden=16, heads=4, vocabulary=12, sequence=6, mesh=mesh, dropout=0.1)


class Attending(nn.Module):
    def __init__(self):
        self.attention = nn.MultiheadAttention(16, 4, dropout=0.2, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x, need_weights=False, is_causal=True)[0]


def attending(mesh):
    return nn.Sequential(nn.Embedding(12, 16), Attending(), nn.LayerNorm(16), Attending(), nn.Linear(16, 12))


@cache
def outcome(build, dataset, plan):
    options = dict(optimizer=lambda p: optim.SGD(p, lr=0.2, momentum=0.9), loss=nn.CrossEntropyLoss(), timeout=120)
    run = train(build, dataset, replace(plan, bucket_mb=0.001), batch_size=BATCH_SIZE, steps=STEPS, **options)
    return run.losses, run.state_dict()


def assert_same_bits(build, dataset, plan, other):
    losses, state = outcome(build, dataset, plan)
    others, other_state = outcome(build, dataset, other)
    assert losses == others and len(losses) == STEPS and np.ptp(losses) > 0
    assert state.keys() == other_state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(other_state[name], value, err_msg=name)


PLANS = [
    Plan(),
    Plan(micro_batches=2),
    Plan(data=2, micro_batches=2, sharding="optimizer"),
    Plan(data=2, micro_batches=2, sharding="parameters"),
    Plan(pipeline=2, micro_batches=2),
    Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2),
    Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"),
]


def name(value):
    return getattr(value, "__name__", str(value) if isinstance(value, Plan | str) else "")


QUICK = {(perceptron, PLANS[1]), (perceptron, PLANS[4]), (cnn, PLANS[2]), (cnn, PLANS[5])}
CASES = [
    pytest.param(build, plan, marks=() if (build, plan) in QUICK else pytest.mark.slow)
    for build in (perceptron, cnn)
    for plan in PLANS
]


@pytest.mark.parametrize(("build", "plan"), CASES, ids=name)
def test_random_masks_are_the_same_again_and_running_statistics_move_once(build, plan):
    assert_same_bits(build, DIGITS, plan, replace(plan, recompute="full"))


@pytest.mark.parametrize(
    ("plan", "recompute"),
    [
        (Plan(micro_batches=2), "selective"),
        pytest.param(Plan(micro_batches=2), "full", marks=pytest.mark.slow),
        pytest.param(Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"), "selective", marks=pytest.mark.slow),
        (Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"), "full"),
        (Plan(tensor=2, micro_batches=2), "selective"),
        (Plan(tensor=2, micro_batches=2), "full"),
    ],
    ids=name,
)
def test_a_transformer_is_the_same_whatever_is_computed_again(plan, recompute):
    assert_same_bits(gpt, sentences(), plan, replace(plan, recompute=recompute))


@pytest.mark.parametrize("plan", [Plan(micro_batches=2), Plan(pipeline=2, micro_batches=2)], ids=str)
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_dropout_of_attention_weights_is_the_same_whatever_is_computed_again(plan, recompute):
    assert_same_bits(attending, sentences(), plan, replace(plan, recompute=recompute))


@pytest.mark.parametrize(
    ("build", "dataset", "plan"),
    [
        (perceptron, DIGITS, Plan(micro_batches=4)),
        (cnn, DIGITS, Plan(pipeline=2, micro_batches=4)),
        (gpt, sentences(), Plan(pipeline=2, tensor=2, micro_batches=2)),
        (gpt, sentences(), Plan(data=2, tensor=2, micro_batches=2, sharding="optimizer", recompute="selective")),
        (attending, sentences(), Plan(pipeline=2, micro_batches=2, recompute="full")),
    ],
    ids=name,
)
def test_a_backward_in_halves_trains_as_a_whole_one(build, dataset, plan):
    assert_same_bits(build, dataset, plan, replace(plan, schedule="zero-bubble"))


def test_recompute_of_attention_is_refused_where_there_is_none():
    message = 'recompute="selective", but the model has no attention whose weights could be computed again'
    options = dict(optimizer=optim.SGD, loss=nn.CrossEntropyLoss())
    for run in (
        lambda: prepare(perceptron, Plan(recompute="selective"), 8, example=DIGITS[np.arange(1)]),
        lambda: train(perceptron, DIGITS, Plan(recompute="selective"), batch_size=8, steps=1, **options),
    ):
        with pytest.raises(ValueError, match=message):
            run()


def test_a_model_built_for_recompute_of_attention_keeps_its_weights_under_another_plan():
    model = gpt(None)
    whole, less = (
        prepare(lambda mesh: model, Plan(recompute=recompute), 8, example=sentences()[np.arange(1)]).profile
        for recompute in ("none", "selective")
    )
    again = prepare(lambda mesh: model, Plan(), 8, example=sentences()[np.arange(1)]).profile
    saved = [sum(block.saved_bytes for block in profile.blocks) for profile in (whole, less, again)]
    assert saved[0] == saved[2] > saved[1]


def test_statistics_that_are_replaced_and_not_written_move_once_too():
    class Moving(nn.Module):
        def __init__(self):
            self.mean = Buffer((64,), init=nn.init.constant(0))

        def forward(self, x):
            self.mean = self.mean * 0.9 + x.detach().mean(0) * 0.1
            return x * 1

    def build(mesh):
        return nn.Sequential(nn.Flatten(), Moving(), nn.Linear(64, 10))

    once, again = (
        train(
            build, DIGITS, Plan(recompute=recompute), loss=nn.CrossEntropyLoss(), batch_size=BATCH_SIZE, steps=STEPS,
            optimizer=lambda p: optim.SGD(p, lr=0.1),
        ).state_dict()
        for recompute in ("none", "full")
    )  # fmt: skip
    assert np.abs(once["1.mean"]).max() > 0
    for name in once:
        np.testing.assert_array_equal(once[name], again[name])


def test_an_attribute_recompute_of_other_layers_is_left_alone():
    class Mine(nn.Module):
        def __init__(self):
            self.recompute = "mine"

        def forward(self, x):
            assert self.recompute == "mine"
            return x

    def build(mesh):
        return nn.Sequential(nn.Flatten(), Mine(), nn.Linear(64, 10))

    for recompute in ("none", "full"):
        prepare(build, Plan(recompute=recompute), 8, example=DIGITS[np.arange(1)])
