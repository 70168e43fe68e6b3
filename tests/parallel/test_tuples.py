"""Blocks may take and make flat tuples of tensors: what has no gradient travels in them, and losses do."""

import numpy as np
import pytest

import minidl
from minidl import data, nn, ops, optim
from minidl.parallel import Plan, train
from minidl.parallel import instructions as I
from minidl.parallel.prepare import prepare
from simulator import simulate
from tests.simulator.hand_made import cluster

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]
BATCH = 48


class Spread(nn.Module):
    """Rows -> the rows, which of their features are dark (no floats), and a first loss of each."""

    def forward(self, x):
        return x, x < 0.1, (x * x).mean(1)


class Experts(nn.Module):
    """The dark features go through one matrix, the others through another; a loss of each row is added up."""

    def __init__(self, features: int):
        self.dark, self.bright = nn.Linear(features, features), nn.Linear(features, features)
        self.drop = nn.Dropout(0.1)

    def forward(self, given):
        x, dark, loss = given
        y = ops.where(dark, self.dark(x), self.bright(x))
        return self.drop(y), dark, loss + (y * y).mean(1)


class Idle(nn.Module):
    """Does not use the losses at all, but hands on others."""

    def forward(self, given):
        x, dark, loss = given
        return ops.relu(x), dark, loss


class Answer(nn.Module):
    def __init__(self, features: int):
        self.linear = nn.Linear(features, 10)

    def forward(self, given):
        x, _, loss = given
        return self.linear(x), loss


class WithAuxiliary(nn.CrossEntropyLoss):
    """Cross-entropy, and a hundredth of the losses that come with the answers."""

    def sum_and_weight(self, output, target):
        total, weight = super().sum_and_weight(output[0], target)
        return total + 0.01 * output[1].sum(), weight

    def right_answers(self, output, target):
        return super().right_answers(output[0], target)


def build(mesh):
    experts = [block for _ in range(3) for block in (Experts(64), Idle())]
    return nn.Sequential(nn.Flatten(), Spread(), *experts, Answer(64))


OPTIONS = dict(
    optimizer=lambda p: optim.SGD(p, lr=0.1, momentum=0.9), loss=WithAuxiliary(), batch_size=BATCH, steps=4,
    evaluate=data.ArrayDataset(*DIGITS[np.arange(100)]),
)  # fmt: skip

PLANS = [
    Plan(micro_batches=2),
    Plan(data=2, sharding="optimizer", bucket_mb=0.01),
    Plan(pipeline=3, micro_batches=3),
    Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"),
    Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, recompute="full", bucket_mb=0.01),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_tuples_travel_between_blocks_and_stages_and_train_as_on_one_worker(plan):
    alone = train(build, DIGITS, Plan(), dtype="float64", **OPTIONS)
    run = train(build, DIGITS, plan, dtype="float64", timeout=60, **OPTIONS)
    np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-10)
    assert run.evaluations[0].accuracy == alone.evaluations[0].accuracy
    for name, value in alone.state_dict().items():
        np.testing.assert_allclose(run.state_dict()[name], value, rtol=1e-7, atol=1e-10)


def test_the_chain_of_blocks_is_what_sequential_computes():
    x, y = OPTIONS["evaluate"][np.arange(100)]
    run = train(build, DIGITS, Plan(pipeline=2), **OPTIONS)
    model = build(Plan().mesh(0)).train(False)
    model.load_state_dict(run.state_dict())
    loss = WithAuxiliary()(model(minidl.tensor(x)), minidl.tensor(y))
    assert run.evaluations[0].loss == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_memory_with_tuples_is_what_is_predicted(plan):
    options = {name: OPTIONS[name] for name in ("optimizer", "loss", "batch_size")}
    run = train(build, DIGITS, plan, steps=3, timeout=60, **options)
    prediction = simulate(build, plan, cluster(cores=2), example=DIGITS[np.arange(1)], **options)
    program = prediction.program
    messages = [i for rank in range(plan.workers) for i in program[rank].step if i.kind in ("send", "receive")]
    early = plan.micro_batches * max(map(program.costs.payload_bytes, messages), default=0)
    assert prediction.memory_bytes <= run.memory_bytes <= prediction.memory_bytes + early


def test_a_message_has_all_arrays_of_an_activation_and_of_a_gradient_those_of_floats():
    example = DIGITS[np.arange(1)]
    prepared = prepare(build, Plan(pipeline=2, micro_batches=2), BATCH, example=example, loss=WithAuxiliary())
    rows = BATCH // 2
    sent = {type(i): i for rank in range(2) for i in prepared.training[rank].step if i.kind == "send"}
    activation, gradient = sent[I.SendActivation], sent[I.SendGradient]
    assert activation.tuple_of == gradient.tuple_of == (True, False, True)
    assert prepared.costs.payload_bytes(activation) == rows * (64 * 4 + 64 + 4)
    assert prepared.costs.payload_bytes(gradient) == rows * (64 * 4 + 4)


def test_what_is_no_tensor_in_a_tuple_is_refused():
    class Half(nn.Module):
        def forward(self, x):
            return x, 3

    class Nothing(nn.Module):
        def forward(self, x):
            return ()

    for made, words in ((Half, "Half made a int in a tuple"), (Nothing, "Nothing made an empty tuple")):
        with pytest.raises(TypeError, match=words):
            prepare(lambda mesh, made=made: made(), Plan(), 8, example=DIGITS[np.arange(1)])
