"""Plan -> Program: the lists themselves, for cases small enough to write down."""

import pytest

from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.layout import layout
from minidl.parallel.program import evaluation_program, training_program
from minidl.parallel.schedules import SCHEDULES


def order(schedule, stage, stages, micro_batches):
    return " ".join(f"{kind[0].upper()}{m}" for kind, m in SCHEDULES[schedule](stage, stages, micro_batches))


def test_the_orders_of_three_stages_and_four_micro_batches():
    assert order("naive", 1, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert order("gpipe", 1, 3, 4) == "F0 F1 F2 F3 B0 B1 B2 B3"
    assert order("1f1b", 0, 3, 4) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert order("1f1b", 1, 3, 4) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert order("1f1b", 2, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert order("1f1b", 0, 4, 2) == "F0 F1 B0 B1"  # fewer micro-batches than stages


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_runs_each_micro_batch_once_and_forward_first(schedule):
    for stages in range(1, 6):
        for stage in range(stages):
            for m in range(1, 9):
                steps = list(SCHEDULES[schedule](stage, stages, m))
                assert sorted(steps) == sorted([("backward", i) for i in range(m)] + [("forward", i) for i in range(m)])
                assert all(steps.index(("forward", i)) < steps.index(("backward", i)) for i in range(m))


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
    for schedule in SCHEDULES:
        plan = Plan(data=2, pipeline=2, micro_batches=3, schedule=schedule, sharding="optimizer")
        program = training_program(plan, layout(plan, [1.0] * 4, [2**20] * 4))
        for rank in range(plan.workers):
            forwards = [(i.micro_batch, i.first, i.last) for i in program[rank].step if isinstance(i, I.Forward)]
            assert forwards == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (2, 0, 1)]


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
    for schedule in SCHEDULES:
        plan = Plan(data=2, micro_batches=3, schedule=schedule)
        program = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))
        backwards = [i for i in program[0].step if isinstance(i, I.Backward)]
        assert [(b.micro_batch, b.accumulates, b.first, b.last) for b in backwards] == [
            (0, False, 0, 1), (1, True, 0, 1), (2, True, 1, 1), (2, True, 0, 0),
        ]  # fmt: skip


def test_a_program_without_an_instruction_differs_in_that_alone():
    plan = Plan(data=2)
    program = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))
    shorter = program.without(1, 4)
    assert shorter[0].step == program[0].step
    assert shorter[1].step == program[1].step[:4] + program[1].step[5:]
    assert program.representatives() == (0,) and shorter.representatives() == (0, 1)
