"""Costs: what each buffer holds and each instruction calls, against closed forms on a small MLP."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from unittest.mock import ANY

import pytest

from minidl import models, nn, optim
from minidl.events import Details
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.costs import Costs, part_of
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import Layout
from minidl.parallel.prepare import prepare
from minidl.parallel.shares import SHARE_ELEMENTS, parts

SAMPLES = 4  # of a micro-batch
EXAMPLE = MetaArray((1, 8, 8), "float32"), MetaArray((1,), "int64")
IMAGE, HIDDEN, LOGITS = (4 * SAMPLES * numbers for numbers in (64, 32, 10))  # bytes
WEIGHTS = 64 * 32 + 32, 32 * 10 + 10  # elements of the first layer and of the second


def mlp(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def prepared(plan=None, build=mlp, **options):
    """A bucket for each layer."""
    plan = plan or Plan(bucket_mb=1e-4)
    return prepare(build, plan, SAMPLES * plan.data * plan.micro_batches, **{"example": EXAMPLE} | options)


def costs(plan=None, chunks=((0, 4),), buckets=(((0, 3), (3, 4)),), first_trained=1, **options):
    """Those of the MLP in a layout made by hand."""
    profile = prepared(**options).profile
    stages = tuple((chunk,) for chunk in range(len(chunks)))
    return Costs(plan or Plan(pipeline=len(chunks)), Layout(chunks, buckets, stages, first_trained), profile)


def sizes(costs, *buffers):
    """The bytes of all buffers together: what several share counts once."""
    return sum({key: n for buffer in buffers for key, n in costs.bytes_of(buffer).items()}.values())


def padded(elements, shares=1):
    unit = shares * SHARE_ELEMENTS
    return -(-elements // unit) * unit


def sharded(data):
    return Plan(data=data, sharding="optimizer", bucket_mb=1e-4)


# What stays


def test_parameters_and_gradients_of_a_bucket_are_those_of_its_blocks():
    for bucket, elements in enumerate(WEIGHTS):
        assert sizes(costs(), B.parameters(0, bucket)) == 4 * elements
        assert sizes(costs(), B.gradients(0, bucket)) == 4 * padded(elements)  # a flat buffer of whole cache lines


@pytest.mark.parametrize("data", [2, 3, 8])
def test_replicas_that_share_the_update_hold_flat_buffers_of_equal_shares(data):
    found = costs(sharded(data))
    for bucket, elements in enumerate(WEIGHTS):
        assert (
            sizes(found, B.parameters(0, bucket)) == sizes(found, B.gradients(0, bucket)) == 4 * padded(elements, data)
        )
        assert sizes(found, B.state(0, bucket)) == 8 * min(
            elements, padded(elements, data) // data
        )  # Adam: two moments


def test_the_state_is_what_the_optimizer_keeps():
    for optimizer, per_element in ((optim.Adam, 8), (optim.SGD, 0), (lambda p: optim.SGD(p, lr=1, momentum=0.5), 4)):
        for bucket, elements in enumerate(WEIGHTS):
            assert sizes(costs(optimizer=optimizer), B.state(0, bucket)) == per_element * elements


def test_statistics_are_those_of_all_blocks_of_a_chunk():
    def build(mesh):
        return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8))

    example = MetaArray((1, 8), "float32"), MetaArray((1,), "int64")
    found = prepared(build=build, example=example).costs
    assert sizes(found, B.statistics(0)) == sum(b.data.nbytes for b in nn.BatchNorm1d(8).buffers()) == 4 * 16 + 8
    assert found.payload_bytes(I.BroadcastStatistics(0)) == 4 * 16 + 8


# What a step makes and frees


def test_activations_and_their_gradients_are_the_arrays_at_the_borders_of_buckets():
    found = costs()
    for bucket, nbytes in ((-1, IMAGE), (0, HIDDEN), (1, LOGITS)):
        assert sizes(found, B.activation(0, 0, bucket)) == sizes(found, B.output_gradient(0, 0, bucket)) == nbytes
    cut = costs(chunks=((0, 2), (2, 4)), buckets=(((0, 2),), ((2, 4),)))
    for border in (B.activation(0, 1, 0), B.activation(1, 1, -1), B.output_gradient(0, 1, 0)):
        assert sizes(cut, border) == HIDDEN
    assert sizes(cut, B.activation(0, 1, 0), B.activation(1, 1, -1)) == 2 * HIDDEN  # each stage has an array of its own


def test_the_output_of_flatten_lies_in_the_storage_of_its_input():
    by_block = costs(buckets=(tuple((k, k + 1) for k in range(4)),))
    image, flat = B.activation(0, 0, -1), B.activation(0, 0, 0)
    assert by_block.bytes_of(image) == by_block.bytes_of(flat) and sizes(by_block, image, flat) == IMAGE
    assert sizes(by_block, flat, B.saved(0, 0, 1)) == IMAGE  # which the layer keeps
    assert sizes(by_block, B.activation(0, 0, -1), B.activation(0, 1, -1)) == 2 * IMAGE  # of each micro-batch
    border = costs(chunks=((0, 1), (1, 4)), buckets=(((0, 1),), ((1, 4),)))
    assert sizes(border, B.activation(0, 0, 0), B.activation(1, 0, -1), B.saved(1, 0, 0)) == 2 * IMAGE + HIDDEN


def test_what_is_saved_shares_the_storage_of_activations():
    found = costs()
    assert sizes(found, B.saved(0, 0, 0)) == IMAGE + HIDDEN  # what the layer takes and the ReLU gives
    assert sizes(found, B.saved(0, 0, 1)) == HIDDEN
    everything = [B.activation(0, 0, b) for b in (-1, 0, 1)] + [B.saved(0, 0, b) for b in (0, 1)]
    assert sizes(found, *everything) == IMAGE + HIDDEN + LOGITS


def test_what_is_saved_and_no_activation_has_a_storage_of_its_own():
    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))

    found = costs(build=build)
    (mask,) = (nbytes for name, nbytes in prepared(build=build).profile.blocks[2].saved if name == "0")
    saved = found.bytes_of(B.saved(0, 0, 0))
    assert mask and sizes(found, B.saved(0, 0, 0)) == IMAGE + mask
    assert sizes(found, B.activation(0, 0, -1), B.activation(0, 0, 0), B.saved(0, 0, 0)) == IMAGE + HIDDEN + mask
    assert not saved.keys() & found.bytes_of(B.saved(0, 1, 0)).keys()


def test_blocks_before_the_first_trained_one_save_nothing():
    assert sizes(costs(first_trained=3), B.saved(0, 0, 0)) == 0
    assert sizes(costs(first_trained=3), B.saved(0, 0, 1)) == HIDDEN
    assert sizes(costs(first_trained=2), B.saved(0, 0, 0)) == HIDDEN


def test_sums_that_ranks_reduce_are_float64():
    found = prepared(optimizer=lambda p: optim.LAMB(p, lr=1e-3)).costs
    assert sizes(found, B.TOTAL) == 32 and sizes(found, B.NORM) == 8 and sizes(found, B.loss(0)) == 0
    assert sizes(found, B.norms(0, 1)) == 8 * 2 * 2  # two norms of weight and of bias
    assert sizes(costs(), B.norms(0, 1)) == 0
    assert sizes(found, B.target(0)) == 8 * SAMPLES


# What messages and collectives move


def test_a_message_has_the_bytes_of_its_border():
    found = costs(chunks=((0, 2), (2, 4)), buckets=(((0, 2),), ((2, 4),)))
    messages = (
        I.SendActivation(0, 0, 0, 1), I.RecvActivation(1, 0, 0), I.SendGradient(1, 0, 0), I.RecvGradient(0, 0, 0, 1)
    )  # fmt: skip
    assert [found.payload_bytes(i) for i in messages] == [HIDDEN] * 4


def test_a_collective_moves_the_whole_array_on_every_rank():
    whole, shared = costs(Plan(data=2)), costs(sharded(2))
    for bucket, elements in enumerate(WEIGHTS):
        assert whole.payload_bytes(I.ReduceGradients(0, bucket)) == 4 * padded(elements)
        for i in (I.ReduceScatterGradients(0, bucket), I.GatherParameters(0, bucket)):
            assert shared.payload_bytes(i) == 4 * padded(elements, 2)
    for micro_batches in ((0, 1), ()):  # of the last stage, and of another
        assert whole.payload_bytes(I.ReduceLoss(micro_batches)) == 32
    assert whole.payload_bytes(I.ReduceNorm(((0, 0), (0, 1)), ("pipeline", "tensor"))) == 8
    lamb = prepared(optimizer=lambda p: optim.LAMB(p, lr=1e-3)).costs
    assert lamb.payload_bytes(I.ReduceParameterNorms(((0, 0), (0, 1)), False)) == 8 * 2 * 4


# What is called


def test_a_chunk_calls_what_its_blocks_call_however_it_is_cut():
    found = costs()
    blocks = found.profile.blocks
    forward = [call for block in blocks for call in block.forward]
    assert list(found.calls(I.Forward(0, 0, 0, 1, 0, False))) == forward
    assert [*found.calls(I.Forward(0, 0, 0, 0, 0, False)), *found.calls(I.Forward(0, 0, 1, 1, 0, False))] == forward
    assert list(found.calls(I.Infer(0, 0, 0, 1))) == [call for block in blocks for call in block.infer]
    for accumulates, of in ((False, "backward"), (True, "accumulate")):
        backward = [call for block in reversed(blocks) for call in getattr(block, of)]  # the last block first
        pieces = [found.calls(I.Backward(0, 0, b, b, accumulates, b > 0)) for b in (1, 0)]
        assert list(found.calls(I.Backward(0, 0, 0, 1, accumulates, False))) == backward == [*pieces[0], *pieces[1]]


def test_the_halves_of_a_backward_are_found_on_the_device_that_was_predicted():
    def build(mesh):
        return models.gpt(2, 64, 1, 32, 2048, mesh=mesh)

    kept = {}
    for device in ("cuda", "cpu"):
        for recompute in ("none", "selective"):
            plan = Plan(recompute=recompute)
            block = prepare(build, plan, 1, device=device).profile.blocks[1]
            halves, whole = block.halves, [call for call in block.accumulate if call.kind != "view"]
            both = [call for call in (*halves.inputs, *halves.accumulate) if call.kind != "view"]
            assert Counter(both) == Counter(whole)
            kept[device, recompute] = block.saved_bytes
    assert kept["cpu", "none"] > kept["cpu", "selective"]


def test_both_halves_of_a_backward_call_what_their_blocks_do_last_one_first():
    found = costs()
    blocks = found.profile.blocks[::-1]
    first = [call for block in blocks for call in block.halves.inputs]
    assert list(found.calls(I.BackwardInput(0, 0, 0, 1, False))) == first
    for accumulates, of, whole in ((False, "weights", "backward"), (True, "accumulate", "accumulate")):
        second = [call for block in blocks for call in getattr(block.halves, of)]
        pieces = [found.calls(I.BackwardWeights(0, 0, b, b, accumulates)) for b in (1, 0)]
        assert list(found.calls(I.BackwardWeights(0, 0, 0, 1, accumulates))) == second == [*pieces[0], *pieces[1]]
        in_one = Counter(call for block in blocks for call in getattr(block, whole) if call.kind != "view")
        assert Counter(call for call in (*first, *second) if call.kind != "view") == in_one


def test_a_bucket_computed_again_calls_what_its_forward_called_from_its_first_block_on():
    def pooled(mesh):
        return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 32), nn.Linear(32, 10))

    for found, bucket in itertools.product((costs(), costs(build=pooled, first_trained=2)), (0, 1)):
        assert found.calls(I.Recompute(0, 0, bucket, bucket)) == found.calls(I.Forward(0, 0, bucket, bucket, 0, True))


def test_running_statistics_are_put_back_after_a_recompute_by_copies():
    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10))

    norm = prepared(build=build).profile.blocks[2]
    more = Counter(norm.recompute) - Counter(norm.forward)
    assert more and {call.kind for call in more} == {"copy"}
    assert not Counter(norm.forward) - Counter(norm.recompute)


def test_what_is_left_for_the_second_half_is_the_input_of_a_product_and_the_gradient_of_its_result():
    found = costs()
    first, last = (found.bytes_of(B.later(0, 0, b)) for b in (0, 1))
    assert sorted(first.values()) == sorted([IMAGE, HIDDEN]) and sorted(last.values()) == sorted([HIDDEN, LOGITS])
    assert sizes(found, B.later(0, 0, 0), B.activation(0, 0, -1)) == IMAGE + HIDDEN  # the input lies there already
    assert not first.keys() & found.bytes_of(B.later(0, 1, 0)).keys()


def test_what_is_loaded_scored_and_ended_is_priced_by_the_profile():
    found = costs()
    assert found.calls(I.Loss(0, 0, 1, True)) == found.profile.loss
    assert found.calls(I.Score(0, 0, 1)) == found.profile.score
    assert found.calls(I.EndEvaluation()) == ()
    for i, nbytes in ((I.LoadInput(0), IMAGE), (I.LoadTarget(0), 8 * SAMPLES)):
        (call,) = found.calls(i)
        assert (call.flops, call.bytes_read, call.bytes_written) == (0, nbytes, nbytes)


def test_equal_work_on_another_micro_batch_costs_the_same():
    found = costs()
    assert found.calls(I.Forward(0, 0, 0, 1, 0, False)) == found.calls(I.Forward(0, 5, 0, 1, 0, False))
    assert found.calls(I.Forward(0, 0, 0, 1, 0, False)) != found.calls(I.Forward(0, 0, 0, 0, 0, False))


def test_collectives_inside_layers_are_found_in_the_profile():
    found = prepared(Plan(tensor=2), build=lambda mesh: models.mlp((64, 32, 32, 32, 10), mesh)).costs
    training = training_program(found.plan, found.layout)[0].step
    by_kind = {type(i): list(found.collectives(i)) for i in training if i.kind == "compute"}
    inside = {kind: calls for kind, calls in by_kind.items() if calls}
    call = CollectiveCall("all_reduce", ("tensor",), 2, HIDDEN)
    assert inside == {
        I.Forward: [call, CollectiveCall("all_reduce", ("tensor",), 2, LOGITS)],
        I.Backward: [replace(call, phase="start", number=ANY)],  # nobody wants the gradient of the data
    }
    assert found.layer_axes() == [("tensor",)] and costs().layer_axes() == []


# Updates


def totals(calls):
    calls = list(calls)
    return [sum(getattr(call, name) for call in calls) for name in ("flops", "bytes_read", "bytes_written")]


@pytest.mark.parametrize("optimizer", [optim.Adam, lambda p: optim.LAMB(p, lr=1e-3)], ids=["Adam", "LAMB"])
@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_the_parts_of_an_update_add_up_to_the_whole(shares, optimizer):
    profile = prepared(optimizer=optimizer).profile
    parameters = [p for block in profile.blocks for p in block.parameters]
    elements = [p.elements for p in parameters]
    for name in ("update", "measure"):
        whole = [call for p in parameters for call in getattr(p, name)]
        views = sum(call.bytes_written == call.bytes_read == 0 for call in whole)
        by_share = [
            [
                call
                for p, part in zip(parameters, parts(elements, share, shares), strict=True)
                for call in part_of(getattr(p, name), (part.stop - part.start) / p.elements)
            ]
            for share in range(shares)
        ]
        assert totals(call for calls in by_share for call in calls) == pytest.approx(totals(whole))
        assert all(sum(call.bytes_written == call.bytes_read == 0 for call in calls) == views for calls in by_share)
        # The kernel of a parameter that lies across the border of two shares is called for both.
        assert sum(map(len, by_share)) <= len(whole) + (shares - 1) * (views + len(whole) // len(parameters))


def test_an_update_is_cut_bucket_by_bucket_and_priced_as_the_replica_does_that_makes_most_calls():
    update = I.OptimizerStep(((0, 0), (0, 1)), False, False, True)
    whole = costs().calls(update)
    assert totals(whole) == totals(call for block in costs().profile.blocks for call in block.update)
    for data in (2, 3):
        shared = costs(sharded(data)).calls(update)
        assert all(a <= b for a, b in zip(totals(shared), totals(whole), strict=True))
        assert all(a >= b / data * 0.9 for a, b in zip(totals(shared), totals(whole), strict=True))
    kernels = [call for call in costs(sharded(2)).calls(update) if isinstance(call, KernelCall) and call.flops]
    assert len(kernels) == 4  # of each bucket, a replica has a part of the weight and the bias


def test_the_update_of_one_bucket_is_a_part_of_the_update_of_all():
    found = costs()
    one, other = (found.calls(I.OptimizerStep(((0, b),), False, False, False)) for b in (0, 1))
    assert found.calls(I.OptimizerStep(((0, 0), (0, 1)), False, False, False)) == (*one, *other)


# What a trace tells


def test_details_say_stage_chunk_blocks_micro_batch_and_the_bytes_that_move():
    found = costs(chunks=((0, 3), (3, 4)), buckets=(((0, 3),), ((3, 4),)))
    assert found.details(0, I.Forward(0, 7, 0, 0, 0, False)) == Details(0, 0, (0, 2), 7)
    sent = found.details(0, I.SendActivation(0, 7, 0, 1))
    assert sent == Details(0, 0, None, 7, HIDDEN, to=1, message="activation")
    assert found.details(1, I.RecvActivation(1, 7, 0)) == Details(1, 1, None, 7, HIDDEN, source=0, message="activation")
    gradients = 4 * padded(WEIGHTS[1])
    assert found.details(1, I.ReduceGradients(1, 0)) == Details(1, 1, (3, 3), None, gradients)
    half = costs(Plan(pipeline=2, precision="float16"), ((0, 3), (3, 4)), (((0, 3),), ((3, 4),)))
    assert half.details(0, I.SendActivation(0, 7, 0, 1)).nbytes == HIDDEN / 2
    assert found.details(1, I.OptimizerStep(((1, 0),), False, False, False)) == Details(1, None, (3, 3))


@pytest.mark.parametrize(("data", "expert"), [(2, 2), (4, 2), (2, 4)])
@pytest.mark.parametrize("bucket_mb", [0.002, 0.01])
def test_an_update_is_priced_as_that_of_the_replica_that_has_most_to_do(data, expert, bucket_mb):
    """Replicas have equal shares of the rest, and of experts those along data alone: found here rank by rank."""
    plan = Plan(data=data, expert=expert, sharding="optimizer", bucket_mb=bucket_mb)
    sizes = dict(layers=3, hidden=16, heads=4, vocabulary=50, sequence=8, experts=4)
    found = prepare(lambda mesh: models.moe_gpt(**sizes, mesh=mesh), plan, plan.workers, optimizer=optim.Adam)
    (update,) = (i for i in found.training[0].step if isinstance(i, I.OptimizerStep))

    def kernels(rank):
        mesh, count = plan.mesh(rank), 0
        for place in update.buckets:
            replicas = plan.spread(found.costs.layout.reduction(*place).replicas)
            updated = [p for p in found.costs.parameters.of(place) if p.trained]
            shares = parts([p.elements for p in updated], mesh.index(*replicas), plan.shards(replicas))
            of_share = (p for p, part in zip(updated, shares, strict=True) if part.stop > part.start)
            count += sum(call.kind != "view" for p in of_share for call in p.update)
        return count

    priced = sum(call.kind != "view" for call in found.costs.calls(update))
    assert priced == max(map(kernels, range(plan.workers)))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"sharding": "optimizer"}, {"sharding": "gradients"}, {"sharding": "parameters"},
        {"schedule": "zero-bubble"}, {"schedule": "interleaved", "chunks": 2},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    ("model", "layers", "classes"),
    [("gpt-tiny", {"layers": 8}, 3), ("gpt-tiny", {"layers": 8, "tied": True}, 3), ("vgg16", {}, 4)],
)
def test_instructions_of_alike_chunks_cost_the_same(model, layers, classes, options):
    plan = Plan(pipeline=4, data=2, micro_batches=4, **options)
    ready = prepare(models.builder(model, **layers), plan, 8)
    found = {}
    for rank in ready.training.representatives():
        for i in ready.training[rank]:
            cost = ready.costs.calls(i) if i.kind == "compute" else ready.costs.payload_bytes(i)
            assert found.setdefault(ready.costs.alike(i), cost) == cost
    if not options:  # else chunks are smaller, and some go forward bucket by bucket, or gather what they name
        assert sum(key[0] is I.Forward for key in found) == classes


def test_chunks_without_parameters_are_alike_only_if_their_blocks_are():
    """Each comes after an equal layer, of which the first one of a chain is none: nobody wants its input's gradient."""

    def build(mesh):
        first, second, third = (nn.Linear(64, 64) for _ in range(3))
        return nn.Sequential(first, second, nn.Tanh(), nn.Tanh(), third, nn.Tanh())

    profile = prepared(build=build, example=(MetaArray((1, 64), "float32"), MetaArray((1,), "int64"))).profile
    chunks = (0, 2), (2, 4), (4, 5), (5, 6)
    layout = Layout(chunks, tuple((chunk,) for chunk in chunks), ((0,), (1,), (2,), (3,)), 0)
    own = Costs(Plan(pipeline=4), layout, profile)
    several, one = I.Forward(1, 0, 0, 0, 0, False), I.Forward(3, 0, 0, 0, 0, False)
    assert len(own.calls(several)) == 2 * len(own.calls(one))
    assert own.alike(several) != own.alike(one)


def test_an_instruction_of_ones_own_is_like_itself_alone():
    @dataclass(frozen=True)
    class Own(I.CustomInstruction):
        chunk: int

        def touches(self):
            return (), (), ()

    whole = prepare(models.builder("gpt-tiny", layers=8), Plan(pipeline=4), 1).costs
    assert whole.alike(Own(1)) != whole.alike(Own(2))
