"""The checker: every valid program passes, and every wrong one is caught with a message that says where."""

import itertools
from dataclasses import replace

import pytest

from minidl.parallel import Plan, ProgramError, check
from minidl.parallel import instructions as I
from minidl.parallel.check import CHANNEL_MESSAGES, RULES
from minidl.parallel.layout import layout
from minidl.parallel.program import Program, RankProgram, evaluation_program, training_program
from minidl.parallel.runtime.channel import SLOTS
from minidl.parallel.runtime.worker import COMMUNICATION_HANDLERS, COMPUTE_HANDLERS

BLOCKS = 8


def programs(plan, clip=False, buckets=True, norms=False):
    """The training and the evaluation program of a chain of 8 equal blocks under `plan`."""
    cuts = layout(replace(plan, bucket_mb=1.0 if buckets else 1e6), [1.0] * BLOCKS, [2**20] * BLOCKS)
    return training_program(plan, cuts, clip, norms), evaluation_program(plan, cuts)


def edited(program, rank, change):
    """The program in which `change(list of instructions)` has changed the list of one rank."""
    step = list(program[rank].step)
    changed = change(step) or step
    return Program(program.plan, program.layout, program._make, {rank: RankProgram((), tuple(changed), ())})


def find(step, kind, **fields):
    return next(n for n, i in enumerate(step) if type(i) is kind and all(getattr(i, k) == v for k, v in fields.items()))


def caught(program, *words):
    with pytest.raises(ProgramError) as error:
        check(program)
    for word in words:
        assert word in str(error.value), str(error.value)


MATRIX = [
    Plan(data=data, pipeline=pipeline, tensor=tensor, micro_batches=micro_batches, schedule=schedule, sharding=sharding)
    for data, pipeline, tensor in itertools.product((1, 2, 4), repeat=3)
    for micro_batches in (1, 2, 4, 8)
    for schedule in ("naive", "gpipe", "1f1b")
    for sharding in (("none", "optimizer") if data > 1 else ("none",))
]


SOME_OR_ALL = pytest.mark.parametrize(
    "plans", [pytest.param(MATRIX[::7], id="some"), pytest.param(MATRIX, id="all", marks=pytest.mark.slow)]
)  # 7 divides no number of values: every value meets every other


@SOME_OR_ALL
def test_every_plan_of_the_matrix_gives_programs_that_pass_with_clipping_and_norms(plans):
    for plan in plans:
        for program in programs(plan, True, norms=True):
            check(program)


@SOME_OR_ALL
def test_every_plan_of_the_matrix_passes_with_the_peak_of_live_micro_batches_that_its_schedule_promises(plans):
    for plan in plans:
        training, evaluation = programs(plan)
        peaks = check(training).peak_micro_batches
        for rank, peak in peaks.items():
            stage = plan.mesh(rank).coordinate("pipeline")
            m = plan.micro_batches
            promised = {"naive": 1, "gpipe": m, "1f1b": min(plan.pipeline - stage, m)}[plan.schedule]
            assert peak == promised
        assert set(check(evaluation).peak_micro_batches.values()) == {0}


def test_one_rank_of_each_stage_stands_for_very_many():
    plan = Plan(data=8, tensor=8, pipeline=16, micro_batches=24)
    cuts = layout(plan, [1.0] * 98, [2**20] * 98)
    report = check(training_program(plan, cuts, clip=True))
    assert len(report.peak_micro_batches) == 16
    assert sorted(report.peak_micro_batches.values()) == list(range(1, 17))


SMALL = [  # and whether gradients are clipped, and updates take norms
    (Plan(), False, True),
    (Plan(micro_batches=3), True, False),
    (Plan(data=2, micro_batches=2), False, False),
    (Plan(pipeline=2, micro_batches=3), True, True),
    (Plan(pipeline=3, micro_batches=2, schedule="gpipe"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2), True, False),
    (Plan(data=2, pipeline=2, tensor=2, schedule="naive", micro_batches=2), True, False),
    (Plan(data=2, sharding="optimizer"), False, True),
    (Plan(data=2, pipeline=2, micro_batches=2, sharding="optimizer"), True, False),
    (Plan(data=2, tensor=2, sharding="optimizer"), True, True),
]
SMALL_IDS = [f"{plan}{', clip' * clip}{', norms' * norms}" for plan, clip, norms in SMALL]


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
def test_deleting_any_instruction_of_any_rank_is_caught(plan, clip, norms):
    for program in programs(plan, clip, norms=norms):
        for rank in range(program.world_size):
            for index, instruction in enumerate(program[rank].step):
                with pytest.raises(ProgramError):
                    check(program.without(rank, index))
                    pytest.fail(f"rank {rank} without {instruction} passes")


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
def test_doing_any_instruction_twice_is_caught(plan, clip, norms):
    for program in programs(plan, clip, norms=norms):
        for rank in range(program.world_size):
            for index, instruction in enumerate(program[rank].step):
                with pytest.raises(ProgramError):
                    check(edited(program, rank, lambda step, n=index: [*step[: n + 1], step[n], *step[n + 1 :]]))
                    pytest.fail(f"rank {rank} with {instruction} twice passes")


PIPELINE = Plan(data=2, pipeline=2, micro_batches=4)  # rank = 2 * stage + replica


def training(plan=PIPELINE, **options):
    return programs(plan, **options)[0]


def swap(step, a, b):
    step[a], step[b] = step[b], step[a]


def test_swapped_receives_are_caught():
    def change(step):
        swap(step, find(step, I.RecvActivation, micro_batch=1), find(step, I.RecvActivation, micro_batch=2))

    caught(
        edited(training(), 2, change),
        "rank 2 expects the activation of micro-batch 2 from rank 0, which sends the activation of micro-batch 1 first",
    )


def test_a_send_to_the_wrong_peer_is_caught():
    def change(step):
        n = find(step, I.SendActivation, micro_batch=3)
        step[n] = replace(step[n], to=3)

    caught(edited(training(), 0, change), "deadlock", "rank 2 at RecvActivation(chunk=1, micro_batch=3, source=0)")

    def all_of_them(step):
        return [replace(i, to=3) if isinstance(i, I.SendActivation) else i for i in step]

    message = "activation of micro-batch 0 of replica 0 after 1 chunks from rank 0 to rank 3"
    caught(edited(training(), 0, all_of_them), message)

    def to_itself(step):
        return [replace(i, to=0) if isinstance(i, I.SendActivation) else i for i in step]

    caught(edited(training(), 0, to_itself), "rank 0: SendActivation(chunk=0, micro_batch=0, to=0) has no such peer")


def test_a_replica_that_trains_on_the_activations_of_another_is_caught():
    program = training()
    cross = {}
    for rank, other in ((0, 3), (1, 2)):
        cross[rank] = tuple(replace(i, to=other) if isinstance(i, I.SendActivation) else i for i in program[rank].step)
    for rank, other in ((2, 1), (3, 0)):
        cross[rank] = tuple(
            replace(i, source=other) if isinstance(i, I.RecvActivation) else i for i in program[rank].step
        )
    wrong = Program(
        program.plan, program.layout, program._make, {r: RankProgram((), step, ()) for r, step in cross.items()}
    )
    message = "compares micro-batch 0 of replica 1 after 2 chunks with the labels of micro-batch 0 of replica 0"
    caught(wrong, "Loss", message)


def test_a_gradient_counted_twice_is_caught():
    def backward_again(step):  # micro-batch 3 again, instead of starting from micro-batch 2
        n = find(step, I.Backward, micro_batch=1)
        step[n] = replace(step[n], after=None)

    caught(edited(training(), 2, backward_again), "rank 2")

    def doubled(step):
        step.insert(find(step, I.Backward), step[find(step, I.Backward)])

    caught(edited(training(Plan(micro_batches=2)), 0, doubled), "deadlock", "rank 0 at Backward(chunk=0, micro_batch=0")


def test_a_micro_batch_that_is_forgotten_is_caught():
    def forget(step):  # train on micro-batch 0 alone, and say so consistently
        return [
            replace(i, gradients=tuple((*g[:3], 0) for g in i.gradients)) if isinstance(i, I.OptimizerStep) else i
            for i in step
            if not (isinstance(i, I.Backward) and i.micro_batch == 1)
        ]

    caught(edited(training(Plan(micro_batches=2)), 0, forget), "('weights', 0, 0, 0) lacks [(0, 1)]")


def test_a_bucket_that_is_left_out_is_caught():
    def leave_out(step):
        n = find(step, I.OptimizerStep)
        step[n] = replace(step[n], gradients=step[n].gradients[1:])

    caught(edited(training(), 0, leave_out), "rank 0", "needs each of the 4 buckets of stage 0 once")

    def twice(step):
        n = find(step, I.ReduceNorm)
        step[n] = replace(step[n], gradients=(step[n].gradients[0], *step[n].gradients))

    caught(edited(training(clip=True), 1, twice), "rank 1: ReduceNorm", "needs each of the 4 buckets of stage 0 once")


def test_an_update_from_shares_and_whole_gradients_is_caught():
    program = training(Plan(data=2, sharding="optimizer"))
    mixed = {}
    for rank in (0, 1):
        step = list(program[rank].step)
        n, update = find(step, I.ReduceScatterGradients, bucket=2), find(step, I.OptimizerStep)
        step[n] = I.ReduceGradients(0, 2, 0)
        whole = tuple(("reduced", 0, 2) if g[2] == 2 else g for g in step[update].gradients)
        step[update] = replace(step[update], gradients=whole)
        mixed[rank] = RankProgram((), tuple(step), ())
    caught(Program(program.plan, program.layout, program._make, mixed), "OptimizerStep", "needs shares of gradients")


def test_a_program_that_updates_more_or_less_than_its_plan_says_is_caught():
    whole, sharded = Plan(data=2), Plan(data=2, sharding="optimizer")
    for plan, other, needs in ((whole, sharded, "whole gradients"), (sharded, whole, "shares of gradients")):
        program = training(other, clip=True)
        lists = {rank: program[rank] for rank in (0, 1)}
        caught(Program(plan, program.layout, program._make, lists), "ReduceNorm", f"needs {needs}: the plan is {plan}")


def test_norms_that_are_summed_over_other_ranks_than_those_that_hold_parts_are_caught():
    def without_replicas(step):
        return [replace(i, shares=not i.shares) if isinstance(i, I.ReduceParameterNorms) else i for i in step]

    for plan in (Plan(data=2, sharding="optimizer"), Plan(data=2)):
        caught(edited(programs(plan, norms=True)[0], 1, without_replicas), "ReduceParameterNorms", "needs shares=")


def test_shares_that_nobody_gathers_are_caught():
    program = training(Plan(data=2, sharding="optimizer"))
    for bucket in (0, 3):
        for rank in (0, 1):
            program = program.without(rank, find(program[rank].step, I.GatherParameters, bucket=bucket))
    caught(program, "rank 0 never frees ('updated', 0, 0), ('updated', 0, 3)")


class HoardingScore(I.Score):
    @property
    def frees(self):
        return super().frees[:1]


def test_a_buffer_that_is_never_freed_is_caught(monkeypatch):
    monkeypatch.setitem(RULES, HoardingScore, RULES[I.Score])

    def hoard(step):
        n = find(step, I.Score, micro_batch=2)
        step[n] = HoardingScore(step[n].chunk, step[n].micro_batch)

    caught(edited(programs(PIPELINE)[1], 2, hoard), "rank 2 never frees ('target', 2)")


def test_an_order_that_deadlocks_is_caught_with_the_place_of_every_rank():
    def backward_first(step):  # stage 0 wants a gradient before it has sent all that stage 1 needs for it
        first, second = find(step, I.RecvGradient, micro_batch=0), find(step, I.SendActivation, micro_batch=0)
        step.insert(second, step.pop(first))

    caught(
        edited(training(Plan(pipeline=2)), 0, backward_first),
        "deadlock: no instruction can run any more (rank 0 at Backward(chunk=0, micro_batch=0",
        "rank 0 at RecvGradient",
        "rank 1 at Forward",
    )


def test_members_of_a_group_that_disagree_are_caught():
    def other_bucket_first(step):
        swap(step, find(step, I.ReduceGradients, bucket=3), find(step, I.ReduceGradients, bucket=2))

    caught(
        edited(training(), 3, other_bucket_first),
        "rank 3 is at ReduceGradients(chunk=1, bucket=2, micro_batch=3), rank 2 of the same group at "
        "ReduceGradients(chunk=1, bucket=3, micro_batch=3)",
    )


def test_a_chunk_of_another_stage_is_caught():
    def shift(step):
        return [replace(i, chunk=1) if hasattr(i, "chunk") else i for i in step]

    caught(edited(training(Plan(micro_batches=2)), 0, shift), "rank 0")

    program = training(Plan(pipeline=3))

    def skip_the_middle(step):
        return [replace(i, to=2) if isinstance(i, I.SendActivation) else i for i in step]

    skipped = edited(program, 0, skip_the_middle)
    final = tuple(replace(i, source=0) if isinstance(i, I.RecvActivation) else i for i in program[2].step)
    skipped = Program(program.plan, program.layout, program._make, skipped.edited | {2: RankProgram((), final, ())})
    caught(skipped, "rank 2: Forward(chunk=2, micro_batch=0) gets micro-batch 0 of replica 0 after 1 chunks")


def test_the_checker_knows_how_many_messages_a_channel_holds():
    assert CHANNEL_MESSAGES == SLOTS
    program = training(Plan(pipeline=2, micro_batches=SLOTS + 30, schedule="gpipe"))
    check(program)

    def take_all_but_one_last(step):  # so nobody takes the message that no longer fits
        return sorted(step, key=lambda i: isinstance(i, I.RecvActivation) and i.micro_batch > 0)

    stuck = f"rank 0 at SendActivation(chunk=0, micro_batch={SLOTS + 1}, to=1)"
    caught(edited(program, 1, take_all_but_one_last), "deadlock", stuck)


def test_every_instruction_has_a_rule():
    kinds = {k for k in vars(I).values() if isinstance(k, type) and issubclass(k, I.Instruction)} - {I.Instruction}
    assert kinds == RULES.keys()
    assert {k for k in kinds if k.lane == I.COMPUTE} == COMPUTE_HANDLERS.keys()
    assert {k for k in kinds if k.lane == I.COMMUNICATION} == COMMUNICATION_HANDLERS.keys()
