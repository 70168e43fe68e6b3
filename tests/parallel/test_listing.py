"""A program shows its lists: every instruction of a rank, or how many are left out, and ranks alike once."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.instructions import Instruction, LoadInput, OptimizerStep
from minidl.parallel.layout import layout
from minidl.parallel.program import Program, RankProgram
from tests.parallel.plans import PLANS

INDENTED = "Indented: the communication lanes."


def program(plan: Plan, make=training_program, **options) -> Program:
    return make(plan, layout(plan, [1.0] * 8, [1 << 20] * 8), **options)


def lists(text: str) -> dict[str, list[str]]:
    """The lines below each heading of a printed program, whose lists stand side by side."""
    found: dict[str, list[str]] = {}
    for part in text.split("\n\n")[1:]:
        heading, *lines = part.splitlines()
        starts = [match.start() for match in re.finditer(r"ranks? \d|…", heading)]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            cells = [line[start:end].rstrip() for line in lines]
            found[heading[start:end].strip()] = [cell for cell in cells if cell]
    return found


def test_ranks_of_a_stage_are_one_list_and_communication_is_indented():
    assert str(program(Plan(data=2, pipeline=2))).splitlines() == [
        "Program of pipeline 2 × data 2, 1f1b: 4 lists of instructions",
        INDENTED,
        "",
        "ranks 0 and 1                    ranks 2 and 3",
        "LoadInput 0                        RecvActivation 0 from stage 0",
        "Forward 0                        Forward 0",
        "  SendActivation 0 to stage 1    LoadTarget 0",
        "  RecvGradient 0 from stage 1    Loss 0",
        "Backward 0 bucket 3              Backward 0",
        "  ReduceGradients bucket 3         SendGradient 0 to stage 0",
        "Backward 0 bucket 2                ReduceGradients bucket 3",
        "  ReduceGradients bucket 2         ReduceGradients bucket 2",
        "Backward 0 bucket 1                ReduceGradients bucket 1",
        "  ReduceGradients bucket 1         ReduceGradients bucket 0",
        "Backward 0 bucket 0                ReduceLoss",
        "  ReduceGradients bucket 0       OptimizerStep",
        "  ReduceLoss",
        "OptimizerStep",
    ]


def test_one_rank_has_one_list_and_names_no_bucket_as_it_runs_all_of_them_at_once():
    text = str(program(Plan()))
    assert text.startswith(f"Program of one worker: 1 list of instructions\n{INDENTED}\n\nrank 0\nLoadInput 0\n")
    assert text.endswith("\nLoss 0\nBackward 0\n  ReduceLoss\nOptimizerStep")
    assert str(program(Plan(), evaluation_program)).endswith("\n  ReduceLoss\nEndEvaluation")


def test_a_forward_or_backward_names_its_buckets_where_they_are_not_all_of_the_chunk():
    sharded = program(Plan(data=2, micro_batches=2, sharding="optimizer"))[0]
    assert [line for line in str(sharded).splitlines() if line.startswith(("Forward", "Backward"))] == [
        "Forward 0 bucket 0", "Forward 0 bucket 1", "Forward 0 bucket 2", "Forward 0 bucket 3",
        "Forward 0 bucket 4", "Forward 0 bucket 5", "Forward 0 bucket 6", "Forward 0 bucket 7",
        "Backward 0", "Forward 1",
        "Backward 1 bucket 7", "Backward 1 bucket 6", "Backward 1 bucket 5", "Backward 1 bucket 4",
        "Backward 1 bucket 3", "Backward 1 bucket 2", "Backward 1 bucket 1", "Backward 1 bucket 0",
    ]  # fmt: skip
    half_frozen = training_program(Plan(), layout(Plan(), [1.0] * 8, [1 << 20] * 8, first_trained=5))[0]
    assert "Forward 0" in str(half_frozen).splitlines() and "Backward 0 buckets 7 to 5" in str(half_frozen).splitlines()


def test_what_is_done_before_an_evaluation_is_shown_above_its_step():
    own = program(Plan(data=2), evaluation_program, statistics=True)[1]
    assert str(own).splitlines() == [
        INDENTED, "before the first step:", "  BroadcastStatistics", "in every step:", "LoadInput 0", "Infer 0",
        "LoadTarget 0", "Score 0", "  ReduceLoss", "EndEvaluation", "after the last:",
    ]  # fmt: skip


def kinds(instructions) -> list[str]:
    return [type(instruction).__name__ for instruction in instructions]


@given(PLANS, st.booleans(), st.booleans())
def test_every_instruction_is_shown_or_counted_within_80_columns(plan, clip, norms):
    p = program(plan, clip=clip, norms=norms)
    text = str(p)
    assert all(len(line) <= 80 for line in text.splitlines()) and "\n" not in repr(p)
    shown = lists(text)
    assert len(shown) == plan.pipeline
    for rank, lines in zip(p.representatives(), shown.values(), strict=True):
        names = [line.split()[0] for line in lines]
        expected = kinds(p[rank].step)
        if len(expected) > 32:
            left_out = f"… {len(expected) - 32} more …"
            assert lines[16] == left_out
            expected[16:-16] = ["…"]
        assert names == expected


def at_stages(instruction: Instruction, in_stage: int) -> Instruction:
    changed = {name: getattr(instruction, name) // in_stage for name in ("to", "source") if hasattr(instruction, name)}
    return replace(instruction, **changed)


@given(PLANS)
def test_ranks_shown_as_one_differ_in_nothing_but_the_ranks_of_their_peers_stages(plan):
    p = program(plan)
    in_stage = plan.workers // plan.pipeline
    for rank in range(plan.workers):
        first = rank // in_stage * in_stage
        assert [at_stages(i, in_stage) for i in p[rank].step] == [at_stages(i, in_stage) for i in p[first].step]


def test_an_edited_list_stands_apart():
    p = program(Plan(data=4)).without(2, 1)
    shown = lists(str(p))
    assert list(shown) == ["ranks 0 and 1", "rank 2, edited", "rank 3"]
    assert shown["ranks 0 and 1"] == shown["rank 3"] != shown["rank 2, edited"]
    assert repr(p) == "<Program of data 4: 4 lists of instructions, 1 of them edited>"


def test_thousands_of_ranks_and_instructions_are_cut_in_the_middle():
    plan = Plan(pipeline=64, data=8, tensor=4, micro_batches=1000)
    p = training_program(plan, layout(plan, [1.0] * 64, [1 << 20] * 64))
    text = str(p)
    assert len(text.splitlines()) < 200 and "… 58 more …" in text and f"… {len(p[32].step) - 32:,} more …" in text
    for heading in ("ranks 0 to 31", "ranks 64 to 95", "ranks 1952 to 1983", "ranks 2016 to 2047"):
        assert heading in text
    assert "ranks 96 to 127" not in text


def test_the_list_of_one_rank_is_shown_whole_with_what_comes_before_and_after_the_steps():
    own = program(Plan(pipeline=2, micro_batches=100))[1]
    assert kinds(own.step) == [line.split()[0] for line in str(own).splitlines()[1:]]
    assert "  RecvActivation 7 from rank 0" in str(own).splitlines()
    assert repr(own) == f"<RankProgram of {len(own.step)} instructions a step>"
    parts = RankProgram((LoadInput(0),), (LoadInput(1),), (OptimizerStep((), False, False, False),))
    assert str(parts).splitlines() == [
        INDENTED, "before the first step:", "LoadInput 0", "in every step:", "LoadInput 1", "after the last:",
        "OptimizerStep",
    ]  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_program_in_one_line_says_of_which_plan_it_is(ranks):
    plural = "s" * (ranks > 1)
    p = program(Plan(tensor=ranks))
    assert repr(p) == f"<Program of {p.plan}: {ranks} list{plural} of instructions>"
