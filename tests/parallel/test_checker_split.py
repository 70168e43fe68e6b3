"""The checker proves the programs of plans that split layers, sequences and experts, and catches those that are wrong.

Their parameters are reduced in several ways: experts over the ranks that have the same ones, what is used on slices of
sequences over the ranks that have the other slices, too.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minidl import models, nn
from minidl.parallel import Plan, ProgramError, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import USUAL, Apart, Reduction, layout
from minidl.parallel.prepare import prepare
from tests.parallel.plans import PLANS
from tests.parallel.programs import BLOCKS, by_all, caught, edited

EXPERTS = Reduction(("data", "context"))
SLICES = Reduction(also=("tensor",))
SLICED_EXPERTS = Reduction(("data", "context"), ("tensor",))


def split_program(plan, clip=True, norms=False, first_trained=0):
    """Of 8 blocks with parameters of every kind, of one block or of several.

    What is apart comes in the order of `kinds` below, tied first; then bucket by bucket what is reduced alike.
    """
    slices, sliced_experts = (SLICES, SLICED_EXPERTS) if plan.tensor > 1 else (USUAL, EXPERTS)
    kinds = ((0, 7), USUAL), ((1, 6), slices), ((3, 4), EXPERTS), ((2, 5), sliced_experts)
    ties = [
        Apart((tuple((block, 9) for block in blocks),), tuple(b for b in blocks if b >= first_trained), reduction)
        for blocks, reduction in kinds
    ]
    ties = [tie for tie in ties if len(tie.trained) != 1]  # whose stages would not all give a gradient
    own = {1: slices} if slices != USUAL else {}
    reductions = [own | ({2: EXPERTS, 3: sliced_experts} if block % 2 else {}) for block in range(BLOCKS)]
    reductions = [found if block >= first_trained else {} for block, found in enumerate(reductions)]
    cuts = layout(plan, [1.0] * BLOCKS, [2**20] * BLOCKS, first_trained, ties, reductions=reductions)
    return training_program(plan, cuts, clip, norms)


FIRST_TRAINED = st.sampled_from([0, 0, 0, 1, 5, BLOCKS])


@given(PLANS, st.booleans(), st.booleans(), FIRST_TRAINED)
@settings(max_examples=25)
def test_every_plan_passes_with_parameters_of_every_kind(plan, clip, norms, first_trained):
    program = split_program(plan, clip, norms, first_trained)
    check(program)
    check(evaluation_program(plan, program.layout, statistics=True))


@given(PLANS.filter(lambda plan: plan.workers <= 16), st.booleans(), st.booleans(), st.data())
@settings(max_examples=60)
def test_deleting_any_instruction_of_any_rank_is_caught(plan, clip, norms, data):
    program = split_program(plan, clip, norms)
    rank = data.draw(st.integers(0, plan.workers - 1))
    step = program[rank].step
    index = data.draw(st.integers(0, len(step) - 1))
    with pytest.raises(ProgramError):
        check(program.without(rank, index))
        pytest.fail(f"rank {rank} without {step[index]} passes")


@given(PLANS.filter(lambda plan: plan.workers <= 16), st.sampled_from([0, 2]), st.data())
@settings(max_examples=60)
def test_a_collective_that_all_ranks_leave_out_or_do_twice_is_caught(plan, times, data):
    program = split_program(plan)
    kinds = I.SumParts, I.ReduceGradients, I.ReduceScatterGradients, I.GatherParameters
    found = sorted({i.name for rank in range(plan.workers) for i in program[rank].step if isinstance(i, kinds)})
    assume(found)
    name = data.draw(st.sampled_from(found))
    with pytest.raises(ProgramError):
        check(by_all(program, lambda i: [i] * times if i.name == name else [i]))
        pytest.fail(f"{name} {times} times passes")


# What each wrong list is refused for

WHOLE = Plan(data=2, expert=2, tensor=2)
SHARED = replace(WHOLE, sharding="optimizer")
SEQUENCES = Plan(data=2, context=2)


def apart_with(program, reduction, tied=False):
    return next(n for n, a in enumerate(program.layout.apart) if (a.reduction, a.tied) == (reduction, tied))


def over(axes, kind, chunk, bucket):
    """A change of instructions: of a kind and place those that meet, meet over these axes."""

    def change(i):
        number = i.apart if isinstance(i, I.SumParts) else getattr(i, "bucket", None)
        same = type(i) is kind and (getattr(i, "chunk", B.APART), number) == (chunk, bucket)
        return [replace(i, axes=axes)] if same else [i]

    return change


@pytest.mark.parametrize("reduction", [SLICES, SLICED_EXPERTS], ids=["slices", "sliced experts"])
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_slices_that_are_not_summed_or_twice_or_over_others_are_caught(reduction, tied):
    program = split_program(WHOLE)
    n = apart_with(program, reduction, tied)

    def times(count):
        return lambda i: [i] * count if isinstance(i, I.SumParts) and i.apart == n else [i]

    for change, what in (
        (times(0), "lack"),
        (times(2), "more than once"),
        (over(("data",), I.SumParts, B.APART, n), "lack"),
        (over(("data", "tensor"), I.SumParts, B.APART, n), "more than once"),
    ):
        caught(by_all(program, change), f"gradients of what is apart, {n} ", what, "of the global batch")


@pytest.mark.parametrize(
    ("axes", "what"), [(("data", "expert"), "more than once"), (("expert",), "lack"), (("tensor",), "lack")]
)
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_experts_that_are_reduced_over_other_ranks_than_have_the_same_are_caught(axes, what, tied):
    program = split_program(WHOLE)
    n = apart_with(program, EXPERTS, tied)
    wrong = by_all(program, over(axes, I.ReduceGradients, B.APART, n))
    caught(wrong, f"gradients of what is apart, {n} ", what, "of the global batch")


def test_gradients_of_what_all_experts_share_that_are_reduced_over_data_alone_are_caught():
    program = split_program(WHOLE)
    caught(by_all(program, over(("data",), I.ReduceGradients, 0, 2)), "gradients of chunk 0, bucket 2 lack")


@pytest.mark.parametrize("axes", [("data",), ("context",)])
def test_gradients_that_ranks_with_parts_of_a_sequence_do_not_sum_are_caught(axes):
    program = split_program(SEQUENCES)
    wrong = by_all(program, over(axes, I.ReduceGradients, 0, 2))
    caught(wrong, "rank 0: gradients of chunk 0, bucket 2 lack", "of the global batch")


def test_parameters_that_are_gathered_over_other_ranks_than_share_their_update_are_caught():
    program = split_program(SHARED)
    n = apart_with(program, EXPERTS)
    needed = f"needs axes={('data',)}: the plan is {SHARED}"
    for axes in (("data", "expert"), ("expert",), ("tensor",)):
        caught(by_all(program, over(axes, I.GatherParameters, B.APART, n)), "GatherParameters", needed)
    needed = f"needs axes={('data', 'expert')}: the plan is {SHARED}"
    for axes in (("data",), ("expert",)):
        caught(by_all(program, over(axes, I.GatherParameters, 0, 2)), "GatherParameters", needed)


def test_an_update_of_experts_by_whole_gradients_where_the_replicas_share_it_is_caught():
    program = split_program(SHARED)
    shared = I.ReduceScatterGradients(B.APART, apart_with(program, EXPERTS), ("data",))
    whole = I.ReduceGradients(shared.chunk, shared.bucket, shared.axes)
    wrong = by_all(program, lambda i: [whole] if i == shared else [i])
    caught(wrong, "ReduceNorm", "needs shares of gradients")


def test_statistics_that_are_broadcast_within_a_part_of_the_replicas_are_caught():
    def build(mesh):
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

    program = prepare(build, Plan(data=4), 8, example=(np.ones((1, 8), "f"), np.zeros(1, int))).evaluation
    alone = {
        rank: replace(program[rank], prologue=tuple(replace(i, axes=("tensor",)) for i in program[rank].prologue))
        for rank in range(4)
    }
    narrow = program.edit(alone)
    caught(narrow, "Infer", "takes the statistics of chunk 0 of replica 1, not 0")


SIZES = dict(layers=1, hidden=8, heads=2, vocabulary=12, sequence=8)
MESH_OF_LAYERS = {
    "tensor": (lambda mesh: models.gpt(**SIZES, mesh=mesh), Plan(tensor=2, micro_batches=2, schedule="gpipe")),
    "slices": (
        lambda mesh: models.gpt(**SIZES, mesh=mesh),
        Plan(tensor=2, sequence_parallel=True, micro_batches=2, schedule="gpipe"),
    ),
    "context": (lambda mesh: models.gpt(**SIZES, mesh=mesh), Plan(context=2, micro_batches=2, schedule="gpipe")),
    "expert": (
        lambda mesh: models.moe_gpt(**SIZES, experts=4, mesh=mesh),
        Plan(expert=2, micro_batches=2, schedule="gpipe"),
    ),
}


@pytest.mark.parametrize("name", MESH_OF_LAYERS)
def test_members_of_a_group_that_disagree_on_a_collective_inside_a_layer_are_caught(name):
    build, plan = MESH_OF_LAYERS[name]
    prepared = prepare(build, plan, 8)
    axis = "tensor" if name == "slices" else name

    def other_order(step):  # micro-batch 1 before micro-batch 0
        return [replace(i, micro_batch=1 - i.micro_batch) if hasattr(i, "micro_batch") else i for i in step]

    for program, kind in ((prepared.training, "Forward"), (prepared.evaluation, "Infer")):
        check(program)
        caught(
            edited(program, 1, other_order),
            f"rank 1 is at {kind}(chunk=0, micro_batch=1",
            f"rank 0 of the same group at {kind}(chunk=0, micro_batch=0",
            f"axes=('{axis}',)",
        )

    def one_after_the_other(step):  # goes back to micro-batch 0 while the other goes on to 1
        return list(prepare(build, replace(plan, schedule="naive"), 8).training[1].step)

    caught(edited(prepared.training, 1, one_after_the_other), "rank 1 is at Backward", "of the same group at Forward")
