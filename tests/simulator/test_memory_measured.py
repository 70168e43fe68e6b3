"""What training holds is what the simulator says: the arrays of a worker, against the walk over its list."""

from types import SimpleNamespace

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.instructions import buffers as B
from minidl.parallel.plan import RECOMPUTATIONS, SHARDINGS
from minidl.parallel.runtime.high_water import HighWater
from minidl.parallel.schedules import SCHEDULES
from simulator import simulate
from tests.parallel.plans import plans
from tests.simulator.hand_made import cluster
from tests.simulator.held import BATCH_SIZE, check_memory, momentum

pytestmark = pytest.mark.usefixtures("warm_workers")

TRAIN, _ = data.digits()


def perceptron(mesh):
    return models.mlp((64, 256, 256, 256, 10), mesh)


SIZES = dict(data=(1, 2), pipeline=(1, 2), tensor=(1, 2), micro_batches=(1, 2, 4), sharding=SHARDINGS)
MATRIX = [
    plan
    for plan in plans(schedule=SCHEDULES, chunks=(1, 2), recompute=("none", "full"), **SIZES)
    if (plan.data > 1 or plan.sharding == "none") and (plan.micro_batches > 1 or plan.schedule == "1f1b")
]
QUICK = (
    Plan(),
    Plan(micro_batches=4, schedule="gpipe"),
    Plan(micro_batches=4),
    Plan(data=2, micro_batches=2),
    Plan(data=2, micro_batches=2, sharding="optimizer"),
    Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
    Plan(pipeline=2, micro_batches=4),
    Plan(pipeline=2, micro_batches=2, schedule="naive"),
    Plan(tensor=2, micro_batches=2),
    Plan(data=2, pipeline=2, micro_batches=4, sharding="optimizer"),
    Plan(pipeline=2, micro_batches=4, schedule="interleaved", chunks=2),
    Plan(pipeline=2, micro_batches=2, schedule="gpipe", chunks=2, recompute="full"),
    Plan(micro_batches=2, schedule="zero-bubble"),
    Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"),
    Plan(tensor=2, micro_batches=2, schedule="zero-bubble", recompute="full"),
    Plan(data=2, micro_batches=2, recompute="full", sharding="optimizer"),
    Plan(data=2, micro_batches=2, sharding="gradients"),
    Plan(data=2, micro_batches=2, sharding="parameters"),
    Plan(data=2, pipeline=2, micro_batches=4, schedule="interleaved", chunks=2, sharding="parameters"),
    Plan(data=2, micro_batches=2, recompute="full", sharding="parameters"),
)
QUICK_WITH_ADAM = (Plan(), Plan(data=2, micro_batches=2, sharding="optimizer"), Plan(tensor=2, micro_batches=2))
assert {*QUICK, *QUICK_WITH_ADAM} <= {*MATRIX}
CASES = [
    pytest.param(plan, optimizer, marks=() if plan in quick else pytest.mark.slow)
    for plan in MATRIX
    for optimizer, quick in ((momentum, QUICK), (optim.Adam, QUICK_WITH_ADAM))
    if optimizer is momentum or plan.chunks == 1 and plan.recompute == "none"
]


def name(value):
    return str(value) if isinstance(value, Plan) else getattr(value, "__name__", "")


@pytest.mark.parametrize(("plan", "optimizer"), CASES, ids=name)
def test_a_perceptron_holds_what_is_predicted(plan, optimizer):
    check_memory(perceptron, TRAIN, plan, optimizer)
    assert check_memory(perceptron, TRAIN, plan, optimizer, batch_size=8) < 1.02  # messages are a small part of it


def wide(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4096), nn.Linear(4096, 16), nn.ReLU(), nn.Linear(16, 10))


def frozen(mesh):
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(4)), nn.Linear(64, 10))
    for place in (1, 2, 4):
        for parameter in model.blocks[place].parameters():
            parameter.requires_grad_(False)
    return model


def adapter(mesh):
    """A large frozen matrix between small ones that are trained."""
    sizes = (64, 16, 512, 16, 10)
    layers = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    for parameter in layers[1].parameters():
        parameter.requires_grad_(False)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    ("build", "plan"),
    [
        (adapter, Plan(data=2, sharding="optimizer", bucket_mb=64)),
        (adapter, Plan(data=2, bucket_mb=64)),
        (wide, Plan(pipeline=2)),  # the fullest stage is the last, whose backward gives a wide gradient
        (wide, Plan(pipeline=2, micro_batches=2)),
        (frozen, Plan()),
        (frozen, Plan(data=2)),
        (frozen, Plan(data=2, sharding="optimizer")),
        (frozen, Plan(data=2, sharding="parameters", bucket_mb=0.01)),
        (frozen, Plan(pipeline=2, micro_batches=2)),
    ],
    ids=lambda value: name(value),
)
def test_wide_and_frozen_models_hold_what_is_predicted(build, plan):
    check_memory(build, TRAIN, plan, optim.Adam)


class Tokens:
    """Batches enough for all steps: sentences of 8 random tokens of 32, and the token after each."""

    text = np.random.default_rng(0).integers(32, size=(4 * BATCH_SIZE, 9))

    def __len__(self):
        return len(self.text)

    def __getitem__(self, index):
        return self.text[index, :-1], self.text[index, 1:]


def cnn(mesh):
    return models.builder("cnn-digits")(mesh)


def gpt(mesh):
    return models.gpt(3, 16, 4, 32, 8, mesh)


def lstm(mesh):
    return models.builder("lstm-digits")(mesh)


OTHER_MODELS = [
    (cnn, TRAIN, Plan()),
    (cnn, TRAIN, Plan(data=2, micro_batches=2, sharding="optimizer")),
    (cnn, TRAIN, Plan(pipeline=2, micro_batches=2)),
    (gpt, Tokens(), Plan()),
    (gpt, Tokens(), Plan(tensor=2, micro_batches=2)),
    (gpt, Tokens(), Plan(data=2, sharding="optimizer")),
    (gpt, Tokens(), Plan(data=2, micro_batches=2, sharding="gradients", bucket_mb=0.01)),
    (gpt, Tokens(), Plan(data=2, micro_batches=2, sharding="parameters", bucket_mb=0.01)),
    (gpt, Tokens(), Plan(pipeline=2, micro_batches=4, schedule="gpipe")),
    (lstm, TRAIN, Plan()),
    (lstm, TRAIN, Plan(data=2, micro_batches=2)),
    (lstm, TRAIN, Plan(micro_batches=2, schedule="gpipe")),
    (lstm, TRAIN, Plan(pipeline=2)),
    (lstm, TRAIN, Plan(pipeline=3)),
    (lstm, TRAIN, Plan(pipeline=4)),
    (cnn, TRAIN, Plan(micro_batches=2, schedule="zero-bubble")),
    (cnn, TRAIN, Plan(pipeline=2, micro_batches=2, schedule="zero-bubble", recompute="full")),
    (cnn, TRAIN, Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2)),
    (gpt, Tokens(), Plan(recompute="selective")),
    (gpt, Tokens(), Plan(recompute="full", bucket_mb=0.01)),
    (gpt, Tokens(), Plan(pipeline=2, micro_batches=4, schedule="zero-bubble")),
    (gpt, Tokens(), Plan(tensor=2, micro_batches=2, schedule="zero-bubble", recompute="selective")),
    (gpt, Tokens(), Plan(data=2, micro_batches=2, schedule="zero-bubble", recompute="full", bucket_mb=0.01)),
    (gpt, Tokens(), Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, recompute="selective")),
    (lstm, TRAIN, Plan(micro_batches=2, schedule="zero-bubble")),
    (lstm, TRAIN, Plan(data=2, recompute="full")),
]


@pytest.mark.parametrize(("build", "dataset", "plan"), OTHER_MODELS, ids=name)
def test_other_models_hold_what_is_predicted(build, dataset, plan):
    check_memory(build, dataset, plan, momentum)


GPT_MATRIX = [
    plan
    for plan in plans(schedule=SCHEDULES, chunks=(1, 2), recompute=RECOMPUTATIONS, bucket_mb=(0.01,), **SIZES)
    if (plan.data > 1 or plan.sharding == "none") and plan.micro_batches != 4 and plan.workers <= 4
]


@pytest.mark.slow
@pytest.mark.parametrize("plan", GPT_MATRIX, ids=name)
def test_a_transformer_holds_what_is_predicted(plan):
    check_memory(gpt, Tokens(), plan, momentum)


def test_the_more_is_computed_again_the_less_a_transformer_holds():
    def held(recompute):
        plan = Plan(micro_batches=2, schedule="gpipe", recompute=recompute, bucket_mb=0.01)
        options = dict(optimizer=momentum, loss=nn.CrossEntropyLoss(), example=Tokens()[np.arange(1)])
        return simulate(lambda mesh: models.gpt(3, 16, 4, 32, 32, mesh), plan, cluster(), 16, **options).memory_bytes

    assert held("full") < held("selective") < held("none")


def test_a_message_that_lies_where_an_array_was_that_is_being_used_up_leaves_no_bytes_behind(monkeypatch):
    """While Backward(1) runs, which uses up what forward kept, a gradient comes to where a larger array was."""
    large, small = (np.zeros(n) for n in (100, 10))

    def with_one_id(arrays):
        return dict.fromkeys([1], sum(sizes)) if (sizes := [array.nbytes for array in arrays]) else {}

    monkeypatch.setattr("minidl.parallel.runtime.high_water.storages", with_one_id)
    memory = HighWater(SimpleNamespace(buckets=(), parameters=(), buffers=()), None)
    forward, backward = I.Forward(0, 1, 0, 0, 0, False), I.Backward(0, 1, 0, 0, False, False)
    receive = I.RecvGradient(0, 0, 0, 1)
    kept = SimpleNamespace(arrays=lambda: [large])
    for _ in range(3):
        memory.look(forward, {B.saved(0, 1, 0): [kept]})
        memory.look(receive, {receive.writes[0]: small})
        memory.look(backward, {})
        memory.look(I.Backward(0, 0, 0, 0, False, False), {})
    assert memory.most.total == large.nbytes + small.nbytes
