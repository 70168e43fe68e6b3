"""Parameters that several blocks hold train as one, wherever these blocks are."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.parallel import Plan, ProgramError, check, train
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import Apart, layout
from minidl.parallel.prepare import prepare
from simulator import simulate
from tests.parallel.plans import plans
from tests.parallel.programs import caught, edited, find
from tests.simulator.hand_made import cluster

pytestmark = pytest.mark.usefixtures("warm_workers")

TOKEN, HEAD = "0.token.weight", "5.linear.weight"
BATCH = 32


def gpt(mesh):
    return models.gpt(layers=4, hidden=16, heads=4, vocabulary=12, sequence=6, mesh=mesh, dropout=0.1, tied=True)


def layer_thrice(mesh):
    """The very layer three times, and its weight once more in a fourth block."""
    layer, last = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
    last.weight = layer.weight
    blocks = nn.Linear(64, 16), layer, nn.Tanh(), layer, nn.Tanh(), layer, last, nn.Linear(16, 10)
    return nn.Sequential(nn.Flatten(), *blocks)


@cache
def sentences():
    text = np.random.default_rng(0).integers(0, 12, (96, 7))
    return data.ArrayDataset(text[:, :-1], text[:, 1:])


DATA = {gpt: sentences(), layer_thrice: data.digits()[0]}


def sgd(parameters):
    return optim.SGD(parameters, lr=0.3, momentum=0.9)


def lamb(parameters):
    return optim.LAMB(parameters, lr=0.01)


def run(build, plan, optimizer=sgd, **options):
    settings = dict(loss=nn.CrossEntropyLoss(), batch_size=BATCH, steps=4, dtype="float64", clip_norm=0.5) | options
    return train(build, DATA[build], plan, optimizer=optimizer, timeout=60, **settings)


@cache
def alone(build, optimizer):
    return run(build, Plan(), optimizer)


PLANS = [
    Plan(data=2, micro_batches=2, sharding="optimizer", bucket_mb=0.001),
    Plan(pipeline=2, micro_batches=4),
    Plan(pipeline=3, micro_batches=2, schedule="gpipe"),
    Plan(pipeline=2, micro_batches=2, schedule="naive", recompute="full", bucket_mb=0.001),
    Plan(pipeline=2, micro_batches=4, schedule="zero-bubble"),
    Plan(pipeline=2, chunks=2, micro_batches=2, schedule="interleaved"),
    Plan(data=2, pipeline=2, micro_batches=2, sharding="optimizer", schedule="zero-bubble", bucket_mb=0.001),
]


@pytest.mark.parametrize("build", DATA, ids=lambda build: build.__name__)
@pytest.mark.parametrize("plan", [*PLANS, Plan(pipeline=2, tensor=2)], ids=str)
def test_what_is_tied_trains_as_on_one_worker_with_clipping(build, plan):
    if build is layer_thrice and plan.tensor > 1:
        pytest.skip("has no split layers")
    expected, got = alone(build, sgd), run(build, plan)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    ours, theirs = got.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("plan", PLANS[:3], ids=str)
def test_norms_of_what_is_tied_count_once(plan):
    expected, got = alone(gpt, lamb), run(gpt, plan, lamb)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-9)
    np.testing.assert_allclose(got.state_dict()[HEAD], expected.state_dict()[HEAD], rtol=1e-7, atol=1e-10)


def test_the_state_has_both_names_and_one_storage():
    for plan in (Plan(), Plan(pipeline=2), Plan(data=2, sharding="optimizer")):
        state = run(gpt, plan, steps=1).state_dict()
        assert np.shares_memory(state[TOKEN], state[HEAD])
        model = gpt(None)
        model.load_state_dict(state)
        assert set(model.state_dict()) == set(state)


def test_a_checkpoint_of_a_tied_model_goes_on_under_another_plan(tmp_path):
    whole = alone(gpt, sgd)
    for first, then in ((Plan(pipeline=2), Plan(data=2, sharding="optimizer")), (Plan(data=2), Plan(pipeline=3))):
        path = tmp_path / "half.safetensors"
        run(gpt, first, steps=2, save=path)
        rest = run(gpt, then, resume=path)
        np.testing.assert_allclose(rest.losses, whole.losses[2:], rtol=1e-9)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_memory_with_what_is_tied_is_what_is_predicted(plan):
    measured = run(gpt, plan, steps=3, dtype="float32")
    prediction = simulate(
        gpt, plan, cluster(cores=2), BATCH, example=sentences()[np.arange(1)], loss=nn.CrossEntropyLoss(),
        optimizer=sgd, clip_norm=0.5,
    )  # fmt: skip
    program = prediction.program
    assert [program[r] for r in range(plan.workers)] == [measured.program[r] for r in range(plan.workers)]
    messages = [i for r in range(plan.workers) for i in program[r].step if i.kind in ("send", "receive")]
    early = plan.micro_batches * max(map(program.costs.payload_bytes, messages), default=0)
    assert prediction.memory_bytes <= measured.memory_bytes <= prediction.memory_bytes + early


def test_a_tied_parameter_counts_once_in_the_costs_and_is_summed_over_the_stages_that_hold_it():
    prepared = prepare(gpt, Plan(pipeline=4, micro_batches=4), BATCH)
    costs, nbytes = prepared.costs, 12 * 16 * 4
    held = [sum(sum(costs.bytes_of(b).values()) for b in prepared.training.persistent(r) if b.holds == "parameters")
            for r in range(4)]  # fmt: skip
    assert sum(held) == sum(p.data.nbytes for p in prepared.model.parameters()) + nbytes  # two stages have a copy
    sums = [i for r in range(4) for i in prepared.training[r].step if isinstance(i, I.SumParts)]
    assert sums == [I.SumParts(0, (("pipeline", (0, 3)),))] * 2
    assert costs.payload_bytes(sums[0]) == nbytes
    assert prepared.training.plan.mesh(2).ranks(*sums[0].axes) == (0, 3)


# The checker


TIES = (
    Apart((((0, 0), (7, 0)),), (0, 7)),
    Apart((((3, 0), (4, 0)),), (3, 4)),
    Apart((((1, 0), (6, 0)),), ()),
    Apart((((0, 1), (7, 1)),), (0, 7)),
)


def tied_program(plan, clip=True):
    return training_program(plan, layout(plan, [1.0] * 8, [2**20] * 8, ties=TIES), clip)


def test_every_plan_of_tied_blocks_passes_the_checker():
    options = dict(data=(1, 2), pipeline=(1, 2, 4), chunks=(1, 2), micro_batches=(4,), sharding=("none", "optimizer"))
    for plan in plans(**options, schedule=("naive", "gpipe", "1f1b", "interleaved", "zero-bubble"),
                      recompute=("none", "full")):  # fmt: skip
        check(tied_program(plan))


@pytest.mark.parametrize("plan", [Plan(pipeline=2, micro_batches=2), Plan(data=2, pipeline=2, sharding="optimizer")])
def test_a_tied_gradient_that_lacks_a_block_or_a_stage_is_caught(plan):
    program = tied_program(plan)
    for rank in (0, plan.workers - 1):
        step = program[rank].step
        with pytest.raises(ProgramError):
            check(program.without(rank, find(step, I.SumParts, apart=0)))
        for n, i in enumerate(step):
            if isinstance(i, I.ThroughBuckets) and i.apart:
                blind = edited(program, rank, lambda own, n=n, i=i: own[:n] + [replace(i, apart=())] + own[n + 1 :])
                with pytest.raises(ProgramError):
                    check(blind)

    def twice(own):
        n = find(own, I.SumParts, apart=0)
        return own[:n] + [own[n]] + own[n:]

    both = {rank: replace(program[rank], step=tuple(twice(list(program[rank].step)))) for rank in range(plan.workers)}
    caught(program.edit(both), "more than once")


def test_the_stages_that_share_a_parameter_each_update_their_copy():
    program = tied_program(Plan(pipeline=2, micro_batches=2))
    for rank in range(2):
        (update,) = (i for i in program[rank].step if isinstance(i, I.OptimizerStep))
        assert (B.APART, 0) in update.buckets and (B.APART, 2) not in update.buckets
    (norm,) = (i for i in program[1].step if isinstance(i, I.ReduceNorm))
    assert (B.APART, 0) not in norm.buckets  # the first stage counts it


def test_ranks_that_sum_other_tied_parameters_are_caught():
    program = tied_program(Plan(pipeline=2, micro_batches=2))

    def swap(own):
        one, other = find(own, I.SumParts, apart=0), find(own, I.SumParts, apart=3)
        own[one], own[other] = own[other], own[one]

    caught(edited(program, 1, swap), "SumParts(apart=3", "SumParts(apart=0")


# Where no gradient goes back to some of the blocks


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


def behind(place):
    """Blocks that share a weight, with one before the last of them, or after all, that gives no gradient."""

    def build(mesh):
        layer = nn.Linear(16, 16)
        blocks = [nn.Linear(64, 16), layer, nn.Tanh(), layer, nn.Linear(16, 10)]
        blocks.insert(place, Detach())
        return nn.Sequential(nn.Flatten(), *blocks)

    return build


@pytest.mark.parametrize("place", [2, 4])
@pytest.mark.parametrize("plan", [Plan(micro_batches=2), Plan(data=2, micro_batches=2, sharding="optimizer")], ids=str)
def test_blocks_to_which_no_gradient_goes_back_give_none(place, plan):
    expected, got = (
        train(behind(place), data.digits()[0], p, optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=BATCH, steps=3,
              dtype="float64", timeout=60)
        for p in (Plan(), plan)
    )  # fmt: skip
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    state, start = expected.state_dict(), expected.state_dict()["1.weight"]
    for name, value in state.items():
        np.testing.assert_allclose(got.state_dict()[name], value, rtol=1e-8, atol=1e-11)
    prediction = simulate(
        behind(place), plan, cluster(cores=2), BATCH, example=data.digits()[0][np.arange(1)], optimizer=sgd,
        loss=nn.CrossEntropyLoss(),
    )  # fmt: skip
    assert prediction.step_seconds > 0 and start.shape == (16, 64)


# What else knows parameters by name


def test_a_parameter_with_two_names_in_one_block_has_both_in_the_state():
    class Twins(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(64, 10, bias=False), nn.Linear(64, 10, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.a(x) + self.b(x)

    def build(mesh):
        return nn.Sequential(nn.Flatten(), Twins())

    for plan in (Plan(), Plan(pipeline=2)):
        run = train(build, data.digits()[0], plan, optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=8, steps=1)
        assert set(run.state_dict()) == {"1.a.weight", "1.b.weight"}
        build(None).load_state_dict(run.state_dict())


def test_a_trace_of_tied_replicas_is_read_back(tmp_path):
    run_ = run(gpt, Plan(data=2, pipeline=2, micro_batches=2), steps=2)
    run_.trace.save(tmp_path / "trace.json")
    names = {e.name for e in type(run_.trace).load(tmp_path / "trace.json").events}
    assert {"sum parts 0", "reduce 0"} <= names


def test_running_statistics_that_stages_would_share_are_refused():
    def build(mesh):
        norm = nn.BatchNorm1d(64)
        return nn.Sequential(nn.Flatten(), norm, nn.Linear(64, 64), norm, nn.Linear(64, 10))

    prepare(build, Plan(), 8, example=data.digits()[0][np.arange(1)])
    with pytest.raises(ValueError, match="blocks 1 and 3 share running statistics: they must be on one stage"):
        prepare(build, Plan(pipeline=2), 8, example=data.digits()[0][np.arange(1)])
