"""prepare: what is trained at all, what that costs, where the chain is cut; and what does not fit is refused."""

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.kernels import cpu
from minidl.kernels.meta import MetaArray
from minidl.parallel import Mesh, Plan, blocks, check, train
from minidl.parallel import instructions as I
from minidl.parallel.prepare import FLOPS_PER_BYTE, prepare
from minidl.tensor import Tensor
from simulator import simulate
from tests.simulator.hand_made import made_up

pytestmark = pytest.mark.usefixtures("warm_workers")

VECTORS = MetaArray((1, 16), "float32"), MetaArray((1,), "int64")


def chain(*layers, frozen=()):
    """A builder of a chain of these layers, made anew each time, of which some have parameters that are not trained."""

    def build(mesh):
        made = [layer() for layer in layers]
        for k in frozen:
            for parameter in made[k].parameters():
                parameter.requires_grad_(False)
        return nn.Sequential(*made)

    return build


def linear():
    return nn.Linear(16, 16)


def prepared(build, plan=None, batch_size=8, **options):
    return prepare(build, plan or Plan(), batch_size, **{"example": VECTORS} | options)


def kinds(program, rank=0):
    return [type(i) for i in program[rank].step]


# What is trained


def test_a_stage_that_is_frozen_has_no_backward_and_gets_no_gradient():
    ready = prepared(chain(*[linear] * 6, frozen=range(4)), Plan(pipeline=2, micro_batches=2))
    assert ready.profile.first_trained == ready.costs.layout.first_trained == 4
    assert ready.costs.layout.chunks == ((0, 4), (4, 6))
    first, last = (ready.training[rank].step for rank in (0, 1))
    assert not [i for i in first if isinstance(i, I.Backward | I.RecvGradient)]
    assert not [i for i in last if isinstance(i, I.SendGradient)]
    assert all(not i.gives_gradient for i in last if isinstance(i, I.Backward))
    assert [i.buckets for i in first if isinstance(i, I.OptimizerStep)] == [()]
    check(ready.training)


def test_where_nothing_is_trained_the_loss_has_no_gradient():
    ready = prepared(chain(linear, nn.ReLU, linear, frozen=[0, 2]))
    assert ready.profile.first_trained == 3 and ready.profile.optimizer == "none"
    (loss,) = (i for i in ready.training[0].step if isinstance(i, I.Loss))
    assert not loss.trained and all(buffer.holds == "loss" for buffer in loss.writes)
    assert I.Backward not in kinds(ready.training)
    assert all(block.backward == block.accumulate == block.saved == () for block in ready.profile.blocks)
    check(ready.training)


def test_a_frozen_block_behind_a_trained_one_hands_the_gradient_on():
    ready = prepared(chain(linear, linear, linear, frozen=[1]))
    assert ready.profile.first_trained == 0
    assert [products(block.backward) for block in ready.profile.blocks] == [1, 1, 2]  # by weight; by input; by both
    assert all(block.optimizer for k, block in enumerate(ready.profile.blocks) if k != 1)


def products(calls):
    return sum(call.kind == "product" for call in calls)


@pytest.mark.parametrize("frozen", [[], [0], [0, 1]], ids=str)
def test_a_block_is_priced_at_as_many_products_as_it_really_makes(frozen, monkeypatch):
    build = chain(linear, linear, linear, frozen=frozen)
    ready = prepared(build)
    made = build(Mesh({})).blocks
    for block in made:
        block.materialize(0)
    x = np.random.default_rng(0).standard_normal((8, 16), np.float32)
    _, saved = blocks.forward_through(enumerate(made), x, ready.profile.first_trained)
    counted, matmul = [], cpu.matmul
    monkeypatch.setattr(cpu, "matmul", lambda *operands, **options: counted.append(1) or matmul(*operands, **options))
    really, gradient = [], np.ones((8, 16), np.float32)
    for kept in reversed(saved):
        counted.clear()
        gradient = kept.backward(gradient)
        really.insert(0, len(counted))
    assert really == [products(block.backward) for block in ready.profile.blocks[len(frozen) :]]
    assert really[0] == 1 and set(really[1:]) <= {2}  # nobody wants the gradient of what the first trained block takes


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


class Rewrapped(nn.Module):
    def forward(self, x):
        return Tensor(x.data)


@pytest.mark.parametrize("block", [Detached, Rewrapped])
def test_a_block_that_gives_no_gradient_ends_the_chain_of_backwards(block):
    ready = prepared(chain(linear, block, nn.ReLU, linear, linear))
    assert ready.profile.first_trained == 3  # nothing between it and the first layer behind is trained
    assert [bool(found.backward) for found in ready.profile.blocks] == [False, False, False, True, True]
    assert products(ready.profile.blocks[3].backward) == 1
    assert [bool(found.optimizer) for found in ready.profile.blocks] == [False, False, False, True, True]
    last = prepared(chain(linear, linear, block))
    assert last.profile.first_trained == 3 and I.Backward not in kinds(last.training)
    for program in (ready.training, ready.evaluation, last.training):
        check(program)
    cut = prepared(chain(linear, block, linear, linear), Plan(pipeline=2))
    assert cut.profile.first_trained == 2
    check(cut.training)


def test_of_several_blocks_that_give_no_gradient_the_last_one_counts():
    assert prepared(chain(linear, Detached, linear, Detached, linear)).profile.first_trained == 4


# Where the chain is cut


def test_the_device_decides_where_stages_are_cut():
    def wide():
        return nn.Linear(16, 512)

    def narrow():
        return nn.Linear(512, 16)

    build = chain(wide, nn.ReLU, nn.ReLU, nn.ReLU, narrow, linear)
    by_arithmetic = prepared(build, Plan(pipeline=2), flops_per_byte=0)
    by_bytes = prepared(build, Plan(pipeline=2), flops_per_byte=1e6)
    assert by_arithmetic.costs.layout.chunks != by_bytes.costs.layout.chunks
    for ready, flops_per_byte in ((by_arithmetic, 0), (by_bytes, 1e6)):
        weights = [block.cost(flops_per_byte) for block in ready.profile.blocks]
        best = min(max(sum(weights[:k]), sum(weights[k:])) for k in range(1, 6))
        (_, cut), _ = ready.costs.layout.chunks
        assert max(sum(weights[:cut]), sum(weights[cut:])) == pytest.approx(best)
    default = prepared(build, Plan(pipeline=2))
    assert default.costs.layout == prepared(build, Plan(pipeline=2), flops_per_byte=FLOPS_PER_BYTE).costs.layout


def test_clipping_adds_the_norm_of_the_gradient_and_nothing_else():
    build, plan = chain(linear, linear), Plan(pipeline=2)
    plain, clipped = (prepared(build, plan, clip=clip) for clip in (False, True))
    assert clipped.costs.layout == plain.costs.layout
    for rank in (0, 1):
        assert I.ReduceNorm not in kinds(plain.training, rank)
        assert [k for k in kinds(clipped.training, rank) if k is not I.ReduceNorm] == kinds(plain.training, rank)
        assert I.ReduceNorm in kinds(clipped.training, rank)
        assert clipped.evaluation[rank] == plain.evaluation[rank]


def test_statistics_are_broadcast_before_an_evaluation_where_the_model_has_some():
    with_some = chain(linear, lambda: nn.BatchNorm1d(16))
    assert prepared(with_some, Plan(data=2)).evaluation[0].prologue
    assert not prepared(chain(linear), Plan(data=2)).evaluation[0].prologue


def test_the_micro_batch_that_is_profiled_is_one_of_a_replica():
    ready = prepared(chain(linear), Plan(data=2, micro_batches=3), batch_size=24, dtype="float64")
    assert ready.profile.input.shape == (4, 16) and ready.profile.target.shape == (4,)
    assert (ready.profile.input.dtype, ready.profile.target.dtype) == ("float64", "int64")
    assert all(isinstance(p.data, MetaArray) for p in ready.model.parameters())  # nothing is allocated


# One front door


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize(
    "plan",
    [Plan(pipeline=2, micro_batches=2), Plan(data=2, sharding="optimizer", bucket_mb=0.001)],
    ids=["pipeline", "sharded"],
)
def test_one_program_is_trained_simulated_and_prepared(plan, clip_norm):
    build, (digits, _) = models.builder("mlp-digits"), data.digits()
    options = {"optimizer": optim.SGD, "loss": nn.CrossEntropyLoss()}
    ready = prepare(build, plan, 16, clip=clip_norm is not None, **options)
    trained = train(build, digits, plan, batch_size=16, steps=1, clip_norm=clip_norm, timeout=120, **options)
    simulated = simulate(build, plan, made_up().cluster(), 16, clip_norm=clip_norm, **options)
    assert trained.program.layout == simulated.program.layout == ready.training.layout
    for rank in range(plan.workers):
        assert trained.program[rank] == simulated.program[rank] == ready.training[rank]


# What is refused


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="the model carries no example input"):
        prepare(chain(linear), Plan(), 8)
    with pytest.raises(ValueError, match="batch_size 9 is not divisible by data=2 × micro_batches=2"):
        prepared(chain(linear), Plan(data=2, micro_batches=2), batch_size=9)
    with pytest.raises(ValueError, match="pipeline=3 needs at least 3 blocks, the model has 2"):
        prepared(chain(linear, linear), Plan(pipeline=3))
    with pytest.raises(ValueError, match="tensor=2, but the builder splits no layer"):
        prepared(chain(linear), Plan(tensor=2))
    with pytest.raises(TypeError, match="the builder returned a list, not a minidl.nn.Module"):
        prepared(lambda mesh: [linear()])


def test_an_example_may_be_given_as_tensors_or_arrays_of_any_number_of_samples():
    arrays = np.zeros((3, 16), np.float32), np.zeros(3, np.int64)
    with minidl.device("meta"):
        tensors = minidl.zeros(5, 16), minidl.zeros(5, dtype="int64")
    for example in (arrays, tensors, VECTORS):
        profile = prepared(chain(linear), example=example).profile
        assert profile.input.shape == (8, 16) and profile.target.shape == (8,)
        assert profile.blocks[0].forward == prepared(chain(linear)).profile.blocks[0].forward
