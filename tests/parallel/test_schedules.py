"""Plan -> Program: the lists themselves, for cases small enough to write down."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given

from minidl.parallel import Plan, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.layout import layout
from minidl.parallel.schedules import BACKWARD, FORWARD, INPUT, SCHEDULES, WEIGHTS, Pass
from tests.parallel.plans import PLANS, plans
from tests.parallel.programs import BLOCKS, caught, programs

LETTERS = {FORWARD: "F", BACKWARD: "B", INPUT: "B", WEIGHTS: "W"}


def order(schedule, stage, stages, micro_batches, chunks=1):
    """ "F0" is micro-batch 0 forward through the first chunk, "F0'" through the second."""
    passes = SCHEDULES[schedule].order(stage, stages, micro_batches, chunks)
    return " ".join(LETTERS[kind] + str(m) + "'" * chunk for kind, m, chunk in passes)


def test_the_orders_of_three_stages_and_four_micro_batches():
    assert order("naive", 1, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert order("gpipe", 1, 3, 4) == "F0 F1 F2 F3 B0 B1 B2 B3"
    assert order("1f1b", 0, 3, 4) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert order("1f1b", 1, 3, 4) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert order("1f1b", 2, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert order("1f1b", 0, 4, 2) == "F0 F1 B0 B1"  # fewer micro-batches than stages
    assert order("zero-bubble", 0, 3, 4) == "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3"
    assert order("zero-bubble", 1, 3, 4) == "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3"
    assert order("zero-bubble", 2, 3, 4) == "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3"
    assert order("zero-bubble", 2, 3, 1) == "F0 B0 W0"


def test_the_orders_of_two_stages_of_two_chunks():
    assert order("naive", 0, 2, 2, 2) == "F0 F0' B0' B0 F1 F1' B1' B1"
    assert order("gpipe", 1, 2, 2, 2) == "F0 F1 F0' F1' B0' B1' B0 B1"
    assert order("interleaved", 0, 2, 2, 2) == "F0 F1 F0' F1' B0' B1' B0 B1"
    assert order("interleaved", 1, 2, 2, 2) == "F0 F1 F0' B0' F1' B1' B0 B1"
    assert order("interleaved", 1, 2, 4, 2) == "F0 F1 F0' B0' F1' B1' F2 B0 F3 B1 F2' B2' F3' B3' B2 B3"


SIZES = [  # of every schedule: stages, micro-batches and chunks that a plan may have
    (plan.schedule, plan.pipeline, plan.micro_batches, plan.chunks)
    for plan in plans(schedule=SCHEDULES, pipeline=range(1, 6), micro_batches=range(1, 10), chunks=(1, 2, 3))
]


def test_every_schedule_runs_each_micro_batch_once_through_every_chunk_and_forward_first():
    for schedule, stages, micro_batches, chunks in SIZES:
        halves = (INPUT, WEIGHTS) if schedule == "zero-bubble" else (BACKWARD,)
        for stage in range(stages):
            passes = list(SCHEDULES[schedule].order(stage, stages, micro_batches, chunks))
            each = itertools.product((FORWARD, *halves), range(micro_batches), range(chunks))
            assert sorted(passes) == sorted(each)
            for earlier, later in itertools.pairwise((FORWARD, *halves)):
                for m, chunk in itertools.product(range(micro_batches), range(chunks)):
                    assert passes.index((earlier, m, chunk)) < passes.index((later, m, chunk))


def names(plan, rank, make=training_program, blocks=2, first_trained=0, **options):
    program = make(plan, layout(plan, [1.0] * blocks, [2**20] * blocks, first_trained), **options)
    return [i.name for i in program[rank].step]


def test_the_program_of_one_worker_is_a_plain_training_loop():
    assert names(Plan(), 0) == ["input0", "F0", "target0", "loss0", "B0", "reduce loss", "update"]


def test_the_program_of_a_replica_reduces_each_bucket_while_earlier_blocks_go_backward():
    step = names(Plan(data=2), 1, clip=True)
    tail = ["B0", "reduce 1", "B0", "reduce 0", "reduce loss", "reduce norm", "update"]
    assert step == ["input0", "F0", "target0", "loss0", *tail]


def test_norms_of_parameters_are_measured_and_reduced_before_the_update_that_takes_them():
    tail = ["B0", "reduce loss", "reduce norm", "measure", "reduce norms", "update"]
    assert names(Plan(), 0, clip=True, norms=True) == ["input0", "F0", "target0", "loss0", *tail]


def test_with_a_sharded_optimizer_gradients_are_scattered_and_parameters_gathered():
    step = names(Plan(data=2, sharding="optimizer"), 1)
    reduced = ["B0", "reduce-scatter 1", "B0", "reduce-scatter 0", "reduce loss"]
    assert step == ["input0", "F0", "F0", "target0", "loss0", *reduced, "update", "gather 0", "gather 1"]
    assert names(Plan(sharding="optimizer"), 0) == names(Plan(), 0)  # one replica has nothing to share


def test_where_parameters_are_gathered_the_first_forward_of_a_step_goes_bucket_by_bucket():
    sizes = dict(data=(2,), pipeline=(2,), micro_batches=(4,), sharding=("optimizer",))
    for plan in plans(schedule=SCHEDULES, chunks=(1, 2), recompute=("none", "full"), **sizes):
        program = training_program(plan, layout(plan, [1.0] * 4 * plan.chunks, [2**20] * 4 * plan.chunks))
        for rank in range(plan.workers):
            forwards = [i for i in program[rank].step if isinstance(i, I.Forward)]
            for chunk in program.layout.stages[plan.mesh(rank).coordinate("pipeline")]:
                own = [(i.micro_batch, i.first, i.last) for i in forwards if i.chunk == chunk]
                assert own == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1)]


def test_what_is_not_trained_has_no_backward_and_nothing_to_update():
    plan = Plan(pipeline=2)
    frozen_stage = names(plan, 0, blocks=4, first_trained=2)
    assert frozen_stage == ["input0", "F0", "send0", "reduce loss", "update"]
    assert names(plan, 1, blocks=4, first_trained=2) == [
        "recv0", "F0", "target0", "loss0", "B0", "reduce loss", "update"
    ]  # fmt: skip
    replica = names(Plan(data=2), 0, blocks=4, first_trained=2)
    tail = ["B0", "reduce 3", "B0", "reduce 2", "reduce loss", "update"]
    assert replica == ["input0", "F0", "target0", "loss0", *tail]
    assert names(Plan(), 0, blocks=4, first_trained=4) == ["input0", "F0", "target0", "loss0", "reduce loss", "update"]
    program = training_program(Plan(), layout(Plan(), [1.0] * 4, [2**20] * 4, 3))
    (forward,) = (i for i in program[0].step if isinstance(i, I.Forward))
    (backward,) = (i for i in program[0].step if isinstance(i, I.Backward))
    assert forward.trained == backward.first == backward.last == 3 and not backward.gives_gradient


def test_the_programs_of_two_stages_send_and_receive_in_step():
    plan = Plan(pipeline=2, micro_batches=2)
    assert names(plan, 0) == [
        "input0", "F0", "send0", "input1", "F1", "send1",
        "recv grad0", "B0", "recv grad1", "B1", "reduce loss", "update",
    ]  # fmt: skip
    assert names(plan, 1) == [
        "recv0", "F0", "target0", "loss0", "B0", "send grad0",
        "recv1", "F1", "target1", "loss1", "B1", "send grad1", "reduce loss", "update",
    ]  # fmt: skip


def test_evaluation_goes_forward_alone():
    plan = Plan(pipeline=2, data=2)
    assert names(plan, 0, make=evaluation_program) == ["input0", "infer0", "send0", "reduce loss", "evaluated"]
    final = ["recv0", "infer0", "target0", "score0", "reduce loss", "evaluated"]
    assert names(plan, 2, make=evaluation_program) == final


def test_before_an_evaluation_the_replicas_get_the_statistics_of_the_first():
    for plan, statistics, expected in (
        (Plan(data=2), True, (I.BroadcastStatistics(0),)),
        (Plan(data=2, pipeline=2), True, (I.BroadcastStatistics(1),)),
        (Plan(data=2), False, ()),
        (Plan(pipeline=2), True, ()),
    ):
        program = evaluation_program(plan, layout(plan, [1.0] * 2, [2**20] * 2), statistics)
        own = program[plan.workers - 1]
        assert own.prologue == expected and own.epilogue == ()


def test_gradients_are_accumulated_from_the_first_backward_to_the_last():
    for plan in plans(data=(2,), micro_batches=(3,), schedule=("naive", "gpipe", "1f1b")):
        program = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))
        backwards = [i for i in program[0].step if isinstance(i, I.Backward)]
        assert [(b.micro_batch, b.accumulates, b.first, b.last) for b in backwards] == [
            (0, False, 0, 1), (1, True, 0, 1), (2, True, 1, 1), (2, True, 0, 0),
        ]  # fmt: skip
    for pipeline in 1, 2:  # of halves the second adds to gradients
        plan = Plan(data=2, pipeline=pipeline, micro_batches=3, schedule="zero-bubble")
        program = training_program(plan, layout(plan, [1.0] * 2 * pipeline, [2**20] * 2 * pipeline))
        second = [i for i in program[plan.workers - 1].step if isinstance(i, I.BackwardWeights)]
        assert [(b.micro_batch, b.accumulates, b.first, b.last) for b in second] == [
            (0, False, 0, 1), (1, True, 0, 1), (2, True, 1, 1), (2, True, 0, 0),
        ]  # fmt: skip


def test_halves_of_a_backward_are_sent_on_after_the_first_and_reduced_after_the_second():
    plan = Plan(data=2, pipeline=2, micro_batches=2, schedule="zero-bubble")
    loss = "F0 target0 loss0".split()
    tail = ["W0", "W1", "reduce 1", "W1", "reduce 0", "reduce loss", "update"]
    assert names(plan, 2, blocks=4) == [
        "recv0", *loss, "B0", "send grad0", "recv1", "F1", "target1", "loss1", "B1", "send grad1", *tail
    ]  # fmt: skip


def test_a_bucket_is_computed_again_just_before_it_goes_backward():
    again = ["R0", "B0", "R0", "B0"]
    assert names(Plan(recompute="full"), 0) == ["input0", "F0", "target0", "loss0", *again, "reduce loss", "update"]
    assert names(Plan(pipeline=2, recompute="full"), 0, blocks=4) == [
        "input0", "F0", "send0", "R0", "recv grad0", "B0", "R0", "B0", "reduce loss", "update"
    ]  # fmt: skip
    halved = names(Plan(micro_batches=2, recompute="full", schedule="zero-bubble"), 0)
    assert halved[4:9] == [*again, "W0"]
    frozen = names(Plan(recompute="full"), 0, blocks=4, first_trained=3)
    assert frozen.count("R0") == frozen.count("B0") == 1


def test_recompute_of_attention_alone_is_work_inside_the_blocks():
    assert names(Plan(recompute="selective"), 0) == names(Plan(), 0)


def test_a_program_without_an_instruction_differs_in_that_alone():
    plan = Plan(data=2)
    program = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))
    shorter = program.without(1, 4)
    assert shorter[0].step == program[0].step
    assert shorter[1].step == program[1].step[:4] + program[1].step[5:]
    assert program.representatives() == (0,) and shorter.representatives() == (0, 1)


def two_ahead(stage, stages, micro_batches, chunks):
    """1F1B whose every stage but the last has one more micro-batch on its way."""
    warm_up = min(stages - stage - 1 + (stage < stages - 1), micro_batches)
    yield from (Pass(FORWARD, m) for m in range(warm_up))
    for m in range(micro_batches):
        yield from [Pass(FORWARD, m + warm_up)] * (m + warm_up < micro_batches)
        yield Pass(BACKWARD, m)


def test_a_plan_takes_an_order_of_the_users_own_and_calls_it_by_its_name():
    plan = Plan(pipeline=3, micro_batches=4, schedule=two_ahead)
    program = training_program(plan, layout(plan, [1.0] * 3, [2**20] * 3))
    passes = [[i.name for i in program[rank].step if i.slots] for rank in range(3)]
    assert passes == [
        ["F0", "F1", "F2", "F3", "B0", "B1", "B2", "B3"],
        ["F0", "F1", "F2", "B0", "F3", "B1", "B2", "B3"],
        ["F0", "B0", "F1", "B1", "F2", "B2", "F3", "B3"],
    ]
    assert check(program).peak_micro_batches == {0: 4, 1: 3, 2: 1}
    assert str(plan) == "pipeline 3, two_ahead, 4 micro-batches"
    assert eval(repr(plan)) == plan and hash(plan) == hash(eval(repr(plan)))


def test_an_order_that_leaves_out_a_backward_or_comes_too_early_is_caught():
    def forgets(stage, stages, micro_batches, chunks):
        yield from list(two_ahead(stage, stages, micro_batches, chunks))[: -1 if stage == 0 else None]

    def backward_first(stage, stages, micro_batches, chunks):
        passes = list(two_ahead(stage, stages, micro_batches, chunks))
        yield from reversed(passes) if stage == 1 else passes

    for order, words in (forgets, ["never"]), (backward_first, ["rank 1", "before"]):
        plan = Plan(pipeline=3, micro_batches=4, schedule=order)
        caught(training_program(plan, layout(plan, [1.0] * 3, [2**20] * 3)), *words)


@pytest.mark.parametrize("wrong", [("forward", 0, 0), Pass("sideways", 0), Pass(FORWARD, 4), Pass(FORWARD, 0, 1)])
def test_an_order_of_passes_that_do_not_exist_is_refused(wrong):
    def mine(stage, stages, micro_batches, chunks):
        yield wrong

    plan = Plan(pipeline=2, micro_batches=4, schedule=mine)
    with pytest.raises(ValueError, match=r"schedule mine gives stage 0 .*: needed is a Pass"):
        _ = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))[0]


@given(plan=PLANS)
def test_what_is_made_of_one_micro_batch_for_another_is_what_would_be_made_anew(plan):
    if plan.pipeline * plan.chunks > BLOCKS:
        return
    training, evaluation = programs(plan)
    for program, rank in itertools.product((training, evaluation), (0, plan.workers - 1)):
        for i in program[rank]:
            anew = replace(i)
            assert (anew, anew.name) == (i, i.name)
            if rank == 0 or i.kind not in ("send", "receive"):  # a message has the work of its stage's first rank
                assert anew.work == i.work
            assert (anew.reads, anew.writes, anew.frees) == (i.reads, i.writes, i.frees)
