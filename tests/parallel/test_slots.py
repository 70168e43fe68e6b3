"""Gradients and parameters held in shares: which bucket is in which slot when, and wrong lists that are caught."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given

from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import layout
from minidl.parallel.plan import SHARDINGS
from minidl.parallel.schedules import SCHEDULES
from minidl.parallel.slots import TURNS, slots
from tests.parallel.plans import PLANS
from tests.parallel.programs import BLOCKS, Discard, by_all, caught, edited, find, programs, training

GRADIENTS, PARAMETERS = (Plan(data=2, micro_batches=2, sharding=sharding) for sharding in ("gradients", "parameters"))


@given(PLANS)
def test_neighbouring_buckets_of_a_stage_have_different_slots_and_there_are_two(plan):
    plan = replace(plan, data=2, sharding="parameters")
    cuts = layout(plan, [1.0] * 12, [2**20] * 12)
    for stage, chunks in enumerate(cuts.stages):
        found = slots(plan, cuts, stage)
        buckets = [(chunk, b) for chunk in chunks for b in range(len(cuts.buckets[chunk]))]
        assert [found[place] for place in buckets] == [turn % TURNS for turn in range(len(buckets))]


@pytest.mark.parametrize("sharding", ["none", "optimizer"])
def test_what_is_whole_or_gathered_once_a_step_has_no_slots(sharding):
    plan = Plan(data=2, sharding=sharding)
    assert slots(plan, layout(plan, [1.0] * 3, [2**20] * 3), 0) == {}


def test_a_single_replica_has_nothing_to_share():
    for sharding in ("gradients", "parameters"):
        for micro_batches in (1, 3):
            alone = Plan(micro_batches=micro_batches)
            (ours, _), (theirs, _) = programs(replace(alone, sharding=sharding)), programs(alone)
            assert ours[0].step == theirs[0].step


def kinds(program, *kinds):
    return [i for i in program[0].step if isinstance(i, kinds)]


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_parameters_are_gathered_for_each_forward_and_each_backward_and_gradients_reduced_after_each(
    schedule, recompute
):
    """Rajbhandari et al. 2020, section 7.2.2: three times the parameters move for a micro-batch."""
    chunks = 2 if schedule == "interleaved" else 1
    plan = Plan(
        data=2,
        pipeline=2,
        micro_batches=4,
        schedule=schedule,
        chunks=chunks,
        sharding="parameters",
        recompute=recompute,
    )
    program = training(plan)
    per_bucket = Counter((type(i), i.chunk, i.bucket) for i in kinds(program, I.GatherParameters, I.ReduceGradients))
    buckets = BLOCKS // 2
    assert len(per_bucket) == 2 * buckets
    assert set(per_bucket.values()) == {2 * plan.micro_batches, plan.micro_batches}
    assert sum(per_bucket.values()) == 3 * buckets * plan.micro_batches


def test_gradients_alone_are_reduced_after_each_micro_batch_and_parameters_gathered_once():
    """Rajbhandari et al. 2020, section 7.2.1."""
    found = Counter(map(type, kinds(training(GRADIENTS), I.GatherParameters, I.ReduceGradients)))
    assert found == {I.ReduceScatterGradients: 2 * BLOCKS, I.GatherParameters: BLOCKS}


def test_the_next_bucket_is_gathered_before_this_one_is_computed():
    names = [i.name for i in training(Plan(data=2, sharding="parameters"))[0].step]
    first = names.index("F0")
    assert names[first - 2 : first] == ["gather 0", "gather 1"]
    assert names[first + 1 : first + 3] == ["gather 2", "F0"]
    backward = names.index("B0")
    assert names[backward - 1 : backward + 4] == ["gather 7", "B0", "reduce-scatter 7", "gather 5", "B0"]
    assert "gather 6" in names[first + 12 : backward - 1]  # that of the backward, beside the last forward


def test_what_is_reduced_is_added_only_when_its_slot_is_needed():
    names = [i.name for i in training(Plan(data=2, sharding="gradients"))[0].step]
    first = names.index("B0")
    assert names[first : first + 6] == ["B0", "reduce-scatter 7", "B0", "reduce-scatter 6", "add", "B0"]


# Wrong lists


def gather(step, n=0):
    return [place for place, i in enumerate(step) if isinstance(i, I.GatherParameters)][n]


def by_both(program, change):
    """`change(list)` is done to the step of both ranks."""
    return program.edit({rank: edited(program, rank, change)[rank] for rank in (0, 1)})


def test_a_backward_without_a_second_gather_is_caught():
    """Forward has dropped the parameters; and where it has not, those of another bucket are in the slot."""
    program = training(PARAMETERS)

    def without_second(step):
        _, second, *_ = (n for n, i in enumerate(step) if isinstance(i, I.GatherParameters) and i.bucket == 5)
        del step[second]

    caught(by_both(program, without_second), "Backward(", "reads slot 1 for gathered parameters, which is freed before")


def kept(i):
    """`i`, which keeps what was gathered for it."""
    changed = replace(i)
    object.__setattr__(changed, "frees", tuple(buffer for buffer in i.frees if buffer.holds != B.GATHERED))
    return changed


def test_a_stale_weight_that_a_tape_has_kept_is_caught():
    """The backward of bucket 5 takes what is in its slot, and that is bucket 7 still: it was kept, 5 never gathered."""

    def stale(step):
        back = [n for n, i in enumerate(step) if isinstance(i, I.Backward) and i.micro_batch == 0]
        seven, five = (next(n for n in back if step[n].first == b) for b in (7, 5))
        step[seven] = kept(step[seven])
        del step[next(n for n in range(seven - 3, five) if step[n].name == "gather 5")]

    wrong = by_both(training(PARAMETERS), stale)
    caught(
        wrong, "Backward(", "takes parameters of chunk 0, bucket 5, and slot 1 for gathered parameters has", "bucket 7"
    )


def test_parameters_that_are_dropped_too_early_are_caught():
    def early(step):
        forward = find(step, I.Forward, first=3)
        slot = step[forward].gathered[0][1]
        step.insert(forward, Discard((slot,)))

    caught(by_both(training(PARAMETERS), early), "Forward(", "slot 1 for gathered parameters, which is freed before")


def test_parameters_that_are_never_dropped_are_caught():
    def never(step):
        last = [n for n, i in enumerate(step) if isinstance(i, I.Backward)][-1]
        step[last] = kept(step[last])

    caught(by_both(training(PARAMETERS), never), "never freed: slot 0 for gathered parameters")


def test_gradients_that_are_added_before_they_are_reduced_are_caught():
    def unreduced(i):
        return [] if isinstance(i, I.ReduceScatterGradients) and i.bucket == 4 else [i]

    caught(by_all(training(GRADIENTS), unreduced), "AddShare(", "needs a share of what is reduced of that bucket")


def test_gradients_that_are_added_to_another_bucket_are_caught():
    def mixed(i):
        return [replace(i, bucket=6 - i.bucket) if isinstance(i, I.AddShare) and i.bucket in (2, 4) else i]

    caught(by_all(training(GRADIENTS), mixed), "AddShare(chunk=0, bucket=2", "of that bucket")


def test_a_reduction_of_another_bucket_than_the_slot_has_is_caught():
    def mixed(i):
        return [replace(i, bucket=2) if isinstance(i, I.ReduceScatterGradients) and i.bucket == 4 else i]

    caught(by_all(training(GRADIENTS), mixed), "ReduceScatterGradients(", "finds there those of other buckets")


def test_a_micro_batch_whose_share_is_not_added_is_caught():
    def lost(step):
        adds = [n for n, i in enumerate(step) if isinstance(i, I.AddShare) and i.bucket == 3]
        step[adds[1]] = Discard((step[adds[1]].slot,))

    caught(by_both(training(GRADIENTS), lost), "gradients of chunk 0, bucket 3 lack")


def test_parameters_gathered_to_stay_are_caught():
    """Every replica would have all of them after the first step, and the plan says that it has a share."""
    stay = I.GatherParameters(0, 2)
    caught(by_both(training(PARAMETERS), lambda step: [*step, stay]), "GatherParameters(", "needs slots as sharding=")


@pytest.mark.parametrize("own", SHARDINGS)
def test_the_lists_of_another_sharding_are_caught(own):
    """The worker has buckets where its plan says: lists that use them elsewhere would overwrite what is needed."""
    plan = Plan(data=2, micro_batches=2, sharding=own)
    for other in SHARDINGS:
        if other != own:
            lists = training(replace(plan, sharding=other))
            caught(training(plan).edit({rank: lists[rank] for rank in (0, 1)}), "rank")


def test_a_slot_that_the_worker_has_not_is_caught():
    def third(i):
        if isinstance(i, I.GatherParameters) and i.bucket == 2:
            return [replace(i, slot=B.gathered(0, 2))]
        if isinstance(i, I.ThroughBuckets) and i.first == 2:
            return [replace(i, gathered=(((0, 2), B.gathered(0, 2)),))]
        return [i]

    caught(by_all(training(PARAMETERS), third), "needs slots as sharding='parameters' has them")


def test_shares_that_are_not_those_of_all_replicas_are_caught():
    def over_some(i):
        if isinstance(i, I.ReduceScatterGradients) and i.bucket == 4:
            return [replace(i, axes=("data",)), replace(i, axes=("context",))]
        return [i]

    for sharding in ("optimizer", "gradients"):
        program = training(Plan(data=2, context=2, sharding=sharding))
        caught(by_all(program, over_some), "ReduceScatterGradients(", "needs axes=('data', 'context')")
