"""One program, two readers: what training did, and what the simulator says it does, are the same events."""

from collections import Counter

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.parallel import Plan, train
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES
from simulator import simulate
from tests.simulator.hand_made import PerCall, cluster, links

pytestmark = pytest.mark.usefixtures("warm_workers")

TRAIN, _ = data.digits()
BATCH_SIZE = 48

MLP, CNN, EVEN = (
    lambda mesh: models.mlp((64, 48, 32, 24, 16, 10), mesh=mesh),
    lambda mesh: models.cnn(widths=(4, 8, 8)),
    lambda mesh: models.mlp((64, 48, 32, 24, 10), mesh=mesh),
)


def slow(build, plan):
    """A case that others nearly cover."""
    return pytest.param(build, plan, marks=pytest.mark.slow)


CASES = [
    (MLP, Plan()),
    slow(MLP, Plan(micro_batches=3)),
    slow(MLP, Plan(data=2, bucket_mb=0.004)),
    (MLP, Plan(data=2, micro_batches=2, bucket_mb=0.004)),
    (MLP, Plan(pipeline=2, micro_batches=4, schedule="gpipe")),
    (MLP, Plan(pipeline=3, micro_batches=4, schedule="1f1b")),
    (MLP, Plan(pipeline=2, micro_batches=2, schedule="naive")),
    slow(EVEN, Plan(tensor=2)),
    (MLP, Plan(tensor=2, micro_batches=2)),
    slow(MLP, Plan(data=2, tensor=2, bucket_mb=0.004)),
    slow(MLP, Plan(data=2, pipeline=2, micro_batches=2, schedule="gpipe", bucket_mb=0.004)),
    slow(EVEN, Plan(pipeline=2, tensor=2, micro_batches=2)),
    (MLP, Plan(data=2, pipeline=2, tensor=2, micro_batches=2, bucket_mb=0.004)),
    (CNN, Plan(data=2, pipeline=2, micro_batches=2)),
    slow(MLP, Plan(data=3, sharding="optimizer")),
    (MLP, Plan(data=2, pipeline=2, micro_batches=2, bucket_mb=0.004, sharding="optimizer")),
    (MLP, Plan(data=2, pipeline=2, micro_batches=2, bucket_mb=0.004, sharding="gradients")),
    (MLP, Plan(data=2, micro_batches=2, bucket_mb=0.004, sharding="parameters")),
    (MLP, Plan(pipeline=2, micro_batches=4, schedule="interleaved", chunks=2)),
    slow(MLP, Plan(data=2, pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, sharding="optimizer")),
    slow(MLP, Plan(pipeline=2, micro_batches=2, schedule="gpipe", chunks=2)),
    slow(MLP, Plan(micro_batches=2, schedule="zero-bubble")),
    (MLP, Plan(pipeline=2, micro_batches=4, schedule="zero-bubble")),
    (MLP, Plan(data=2, tensor=2, micro_batches=2, schedule="zero-bubble", bucket_mb=0.004)),
    (MLP, Plan(micro_batches=2, recompute="full", bucket_mb=0.004)),
    slow(CNN, Plan(data=2, pipeline=2, micro_batches=2, recompute="full", bucket_mb=0.004)),
    slow(MLP, Plan(tensor=2, micro_batches=2, schedule="zero-bubble", recompute="full", bucket_mb=0.004)),
    (MLP, Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, recompute="full", bucket_mb=0.004)),
]


class Tokens:
    """Sentences of 8 random tokens of 32, and the token after each."""

    text = np.random.default_rng(0).integers(32, size=(96, 9))

    def __len__(self):
        return len(self.text)

    def __getitem__(self, index):
        return self.text[index, :-1], self.text[index, 1:]


GPT = lambda mesh: models.gpt(3, 16, 4, 32, 8, mesh)  # noqa: E731
GPT_CASES = [slow(GPT, Plan(tensor=2)), (GPT, Plan(pipeline=2, tensor=2, micro_batches=2)), slow(GPT, Plan(data=2))]
GPT_CASES += [(GPT, Plan(tensor=2, recompute="selective")), slow(GPT, Plan(pipeline=2, recompute="selective"))]


def sgd(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def pieces(trace):
    """How many events there are of each rank, lane and name."""
    return Counter((e.rank, e.lane, e.name) for e in trace.events)


def about(trace):
    """The same, with what each event was about."""
    return Counter((e.rank, e.lane, e.name, e.details) for e in trace.events)


def in_order(trace, lane):
    return {rank: [e.name for e in trace.events if e.rank == rank and e.lane == lane] for rank in trace.ranks}


@pytest.mark.parametrize(
    ("build", "plan"),
    CASES + GPT_CASES,
    ids=lambda value: str(value) if isinstance(value, Plan) else "gpt" * (value is GPT),
)
def test_a_measured_step_and_a_simulated_one_are_the_same_events(build, plan):
    settings = dict(optimizer=sgd, loss=nn.CrossEntropyLoss())
    dataset = Tokens() if build is GPT else TRAIN
    run = train(build, dataset, plan, batch_size=BATCH_SIZE, steps=2, timeout=120, **settings)
    example = dataset[np.arange(1)]
    where = cluster(PerCall(1e-5, instruction_seconds=1e-6), links(), cores=2)
    prediction = simulate(build, plan, where, BATCH_SIZE, example=example, **settings)
    assert prediction.trace.kind == "simulated" and run.trace.kind == "measured"
    for measured, simulated in zip(run.trace.steps(), prediction.trace.steps(), strict=True):
        assert about(measured) == about(simulated)
        # Each lane is first-in first-out in both; collectives inside layers come between those of instructions.
        for lane in (COMPUTE, MESSAGES, COLLECTIVES)[: 2 if plan.tensor > 1 else 3]:
            assert in_order(measured, lane) == in_order(simulated, lane)
    instructions = Counter((rank, i.lane, i.name) for rank in range(plan.workers) for i in run.program[rank].step)
    assert not instructions - pieces(simulated)
    assert [run.program[r] for r in range(plan.workers)] == [prediction.program[r] for r in range(plan.workers)]


def test_collectives_inside_layers_cut_the_instruction_in_both_traces():
    plan = Plan(tensor=2)
    run = train(EVEN, TRAIN, plan, batch_size=BATCH_SIZE, steps=2, optimizer=sgd, loss=nn.CrossEntropyLoss())
    where = cluster(PerCall(1e-5), links(), cores=2)
    prediction = simulate(EVEN, plan, where, BATCH_SIZE, example=TRAIN[np.arange(1)], optimizer=sgd)
    for trace in (*run.trace.steps(), *prediction.trace.steps()):
        counts = pieces(trace)
        assert counts[0, COLLECTIVES, "all_reduce"] == 3  # two forward, one backward: the data needs no gradient
        assert counts[0, COMPUTE, "F0"] == 3 and counts[0, COMPUTE, "B0"] == 2


@pytest.mark.parametrize(
    "plan",
    [
        Plan(data=2, bucket_mb=0.004, sharding="optimizer"),
        Plan(data=2, bucket_mb=0.004, sharding="gradients"),
        Plan(data=2, bucket_mb=0.004, sharding="parameters"),
        Plan(data=2, pipeline=2, micro_batches=2, bucket_mb=0.004, sharding="optimizer"),
    ],
    ids=str,
)
def test_a_bucket_goes_forward_after_the_gather_of_the_step_before_in_both_traces(plan):
    settings = dict(optimizer=sgd, loss=nn.CrossEntropyLoss())
    run = train(MLP, TRAIN, plan, batch_size=BATCH_SIZE, steps=4, timeout=120, **settings)
    where = cluster(PerCall(1e-5), links(), cores=2)
    prediction = simulate(MLP, plan, where, BATCH_SIZE, example=TRAIN[np.arange(1)], **settings)
    for trace in (run.trace, prediction.trace):
        for rank in range(plan.workers):
            own = [e for e in trace.events if e.rank == rank]
            cuts = [i.buckets for i in run.program[rank].step if i.label == "F" and i.micro_batch == 0]
            for step in {e.step for e in own} - {0}:
                gathered = {e.name: e.end for e in own if e.step == step - 1 and e.name.startswith("gather")}
                forwards = [e.start for e in own if e.step == step and e.name == "F0"]
                for start, buckets in zip(forwards, cuts, strict=True):
                    assert all(gathered[f"gather {b}"] <= start for b in buckets)


def test_norms_of_parameters_are_measured_and_reduced_in_both_traces():
    plan = Plan(data=2, sharding="optimizer")
    settings = dict(optimizer=lambda p: optim.LAMB(p, lr=0.01), loss=nn.CrossEntropyLoss())
    run = train(MLP, TRAIN, plan, batch_size=BATCH_SIZE, steps=2, timeout=120, **settings)
    where = cluster(PerCall(1.0), links(), cores=2)
    prediction = simulate(MLP, plan, where, BATCH_SIZE, example=TRAIN[np.arange(1)], **settings)
    for trace in (*run.trace.steps(), *prediction.trace.steps()):
        counts = pieces(trace)
        assert counts[0, COMPUTE, "measure"] == counts[0, COLLECTIVES, "reduce norms"] == 1
    seconds = {e.name: e.end - e.start for e in prediction.trace.of_step(1).events if e.rank == 0}
    # Two kernels for each parameter before the sums are known, one after.
    assert seconds["measure"] == pytest.approx(2 * seconds["update"], rel=0.3)


@pytest.mark.parametrize("plan", [Plan(tensor=2, data=2), Plan(pipeline=2, tensor=4, micro_batches=2)], ids=str)
def test_on_devices_of_their_own_the_ranks_do_the_same_things(plan):
    shared, own = (
        simulate(GPT, plan, cluster(PerCall(1e-5), links(), cores=cores), 8, example=Tokens()[np.arange(1)])
        for cores in (2, None)
    )
    few = own.trace.ranks
    assert few == list(plan.mesh(0).ranks("pipeline"))
    assert pieces(own.trace) == Counter({k: n for k, n in pieces(shared.trace).items() if k[0] in few})
    assert in_order(own.trace, COMPUTE) == {
        r: names for r, names in in_order(shared.trace, COMPUTE).items() if r in few
    }
