"""The checker: every valid program passes, and one that lacks any instruction, or does it twice, is caught."""

import itertools
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.parallel import Plan, ProgramError, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.buffer_bytes import BYTES
from minidl.parallel.costs import CALLS
from minidl.parallel.instructions.instruction import KINDS, Collective, Receive, Send
from minidl.parallel.layout import layout
from minidl.parallel.plan import SHARDINGS
from minidl.parallel.rules import COLLECTIVE_RULES, COMPUTE_RULES
from minidl.parallel.runtime.communication import COMMUNICATION_HANDLERS
from minidl.parallel.runtime.worker import COMPUTE_HANDLERS
from minidl.parallel.schedules import SCHEDULES
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES
from tests.parallel.covering import cover
from tests.parallel.plans import PLANS, plans, promised_peak
from tests.parallel.programs import BLOCKS, PIPELINE, by_all, caught, edited, programs

MATRIX = plans(
    data=(1, 2, 4),
    pipeline=(1, 2, 4),
    tensor=(1, 2),
    micro_batches=(1, 2, 4, 8),
    schedule=SCHEDULES,
    chunks=(1, 2),
    recompute=("none", "full"),
    sharding=SHARDINGS,
)
MATRIX = [plan for plan in MATRIX if plan.data > 1 or plan.sharding == "none"]
SOME = [*(Plan(**fields) for fields in cover([asdict(plan) for plan in MATRIX])), *MATRIX[::83]]

SOME_OR_ALL = pytest.mark.parametrize(
    "matrix", [pytest.param(SOME, id="some"), pytest.param(MATRIX, id="all", marks=pytest.mark.slow)]
)


def test_in_some_plans_of_the_matrix_every_two_values_of_two_fields_meet_that_meet_in_all():
    def met(matrix):
        return {pair for plan in matrix for pair in itertools.combinations(asdict(plan).items(), 2)}

    assert met(SOME) == met(MATRIX)


@SOME_OR_ALL
def test_every_plan_of_the_matrix_gives_programs_that_pass_with_clipping_and_norms(matrix):
    for plan in matrix:
        for program in programs(plan, True, norms=True):
            check(program)


@SOME_OR_ALL
def test_every_plan_of_the_matrix_passes_with_the_peak_of_live_micro_batches_that_its_schedule_promises(matrix):
    for plan in matrix:
        training, evaluation = programs(plan)
        peaks = check(training).peak_micro_batches
        for rank, peak in peaks.items():
            assert peak == promised_peak(plan, plan.mesh(rank).coordinate("pipeline"))
        assert set(check(evaluation).peak_micro_batches.values()) == {0}


@given(
    PLANS,
    st.lists(st.sampled_from([0, 1, 2**20]), min_size=8, max_size=12),
    st.integers(0, 12),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=30)
def test_every_plan_passes_whatever_the_sizes_of_blocks_and_wherever_the_gradient_ends(
    plan, sizes, first_trained, clip, norms
):
    cuts = layout(plan, [1.0 + size for size in sizes], sizes, first_trained)
    check(training_program(plan, cuts, clip, norms))
    check(evaluation_program(plan, cuts, statistics=True))


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
    (Plan(data=2, pipeline=2, tensor=2, schedule="naive"), True, False),
    (Plan(data=2, sharding="optimizer"), False, True),
    (Plan(data=2, pipeline=2, micro_batches=2, sharding="optimizer"), True, False),
    (Plan(data=2, tensor=2, sharding="optimizer"), True, True),
    (Plan(pipeline=2, micro_batches=2, schedule="gpipe", chunks=2), False, False),
    (Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2), True, False),
    (Plan(data=2, pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, sharding="optimizer"), False, False),
    (Plan(micro_batches=2, schedule="zero-bubble"), False, True),
    (Plan(pipeline=2, micro_batches=3, schedule="zero-bubble"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2, schedule="zero-bubble", sharding="optimizer"), True, False),
    (Plan(micro_batches=2, recompute="full"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2, recompute="full"), False, False),
    (Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, recompute="full"), False, False),
    (Plan(pipeline=2, micro_batches=2, schedule="zero-bubble", recompute="full"), False, False),
    (Plan(data=2, sharding="optimizer", recompute="full"), False, False),
    (Plan(data=2, sharding="gradients"), True, True),
    (Plan(data=2, pipeline=2, micro_batches=2, sharding="gradients"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2, schedule="zero-bubble", sharding="gradients"), False, False),
    (Plan(data=2, micro_batches=3, sharding="parameters"), True, True),
    (Plan(data=2, pipeline=2, micro_batches=2, sharding="parameters"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2, schedule="interleaved", chunks=2, sharding="parameters"), False, False),
    (Plan(data=2, pipeline=2, micro_batches=2, schedule="zero-bubble", sharding="parameters"), False, False),
    (Plan(data=2, micro_batches=2, sharding="parameters", recompute="full"), False, False),
]
SMALL_IDS = [f"{plan}{', clip' * clip}{', norms' * norms}" for plan, clip, norms in SMALL]


FROZEN = [2, 3, 4, BLOCKS - 1, BLOCKS]  # the first block that is trained: a stage's first, or not; none


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
def test_the_programs_of_a_model_whose_first_blocks_are_frozen_pass(plan, clip, norms):
    for first_trained in FROZEN:
        for program in programs(plan, clip, norms, first_trained):
            check(program)


@pytest.mark.parametrize("first_trained", FROZEN)
def test_where_the_first_blocks_are_frozen_deleting_any_instruction_is_caught(first_trained):
    for plan in (Plan(data=2, pipeline=2, micro_batches=2, sharding="optimizer"), Plan(pipeline=3, micro_batches=2)):
        program = programs(plan, True, True, first_trained)[0]
        for rank in range(program.world_size):
            for index, instruction in enumerate(program[rank].step):
                if not (instruction.writes or instruction.frees):
                    continue  # it measures the parameters of a stage that trains none
                with pytest.raises(ProgramError):
                    check(program.without(rank, index))
                    pytest.fail(f"rank {rank} without {instruction} passes")


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
def test_deleting_any_instruction_of_any_rank_is_caught(plan, clip, norms):
    for program in programs(plan, clip, norms=norms):
        for rank in range(program.world_size):
            for index, instruction in enumerate(program[rank].step):
                with pytest.raises(ProgramError):
                    check(program.without(rank, index))
                    pytest.fail(f"rank {rank} without {instruction} passes")


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
@pytest.mark.parametrize("times", [0, 2], ids=["left out", "done twice"])
def test_a_collective_that_all_ranks_leave_out_or_do_twice_is_caught(plan, clip, norms, times):
    for program in programs(plan, clip, norms=norms):
        for what in {i.name for i in program[program.world_size - 1].step if i.kind == "collective"}:
            with pytest.raises(ProgramError):
                check(by_all(program, lambda i, what=what: [i] * (times if i.name == what else 1)))
                pytest.fail(f"{what} {times} times passes")


def test_a_rank_that_does_not_broadcast_its_statistics_is_caught():
    for plan in (Plan(data=2), PIPELINE):
        for rank in range(plan.workers):
            program = programs(plan)[1]
            caught(program.edit({rank: replace(program[rank], prologue=())}), "deadlock", "BroadcastStatistics")


@pytest.mark.parametrize(("plan", "clip", "norms"), SMALL, ids=SMALL_IDS)
def test_doing_any_instruction_twice_is_caught(plan, clip, norms):
    for program in programs(plan, clip, norms=norms):
        for rank in range(program.world_size):
            for index, instruction in enumerate(program[rank].step):
                with pytest.raises(ProgramError):
                    check(edited(program, rank, lambda step, n=index: [*step[: n + 1], step[n], *step[n + 1 :]]))
                    pytest.fail(f"rank {rank} with {instruction} twice passes")


def test_every_instruction_is_known_to_all_who_run_it():
    kinds = {k for k in vars(I).values() if isinstance(k, type) and issubclass(k, I.Instruction)}
    kinds -= {I.Instruction, I.ThroughBuckets, I.GivesGradients, I.CustomInstruction}
    compute = {k for k in kinds if k.lane == COMPUTE}
    assert {k.kind for k in kinds} == set(KINDS)
    assert compute == {k for k in kinds if k.kind == "compute"}
    assert compute == COMPUTE_HANDLERS.keys() == CALLS.keys() == COMPUTE_RULES.keys()
    assert kinds - compute == COMMUNICATION_HANDLERS.keys()
    assert {k for k in kinds if k.lane == MESSAGES} == {k for k in kinds if issubclass(k, Send | Receive)}
    collectives = {k for k in kinds if k.lane == COLLECTIVES}
    assert collectives == {k for k in kinds if issubclass(k, Collective)}
    assert collectives == COLLECTIVE_RULES.keys()


def test_the_bytes_of_every_buffer_that_a_program_touches_can_be_looked_up():
    held = {
        buffer.holds
        for plan in SOME
        for program in programs(plan, True, norms=True)
        for rank in program.representatives()
        for i in program[rank]
        for buffer in (*i.reads, *i.writes, *i.frees)
    }
    assert held == BYTES.keys()
