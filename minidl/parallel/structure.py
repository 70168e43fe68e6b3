"""Structure: what waits for what in a program, proven; found once for all programs that are alike.

It depends neither on costs nor, as lists differ but for their peers, on how many ranks there are along an axis if there
are several. So it is found under a plan that has two of them (folding.py), and remembered. Times are not. Of an edited
program it is found each time, on those ranks that the edits tell apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from minidl.parallel.checker import check
from minidl.parallel.dependencies import Dependencies, Graph
from minidl.parallel.few_micro_batches import few_micro_batches, of_a_round
from minidl.parallel.finding_rounds import rounds_of
from minidl.parallel.folding import folded_plan, told_apart
from minidl.parallel.instructions import Instruction
from minidl.parallel.meetings import CHANNEL_MESSAGES, Members
from minidl.parallel.program import PARTS, Program
from minidl.parallel.remembered import Remembered
from minidl.parallel.rounds import LEAST, Rounds

_known = Remembered(64)


@dataclass(frozen=True)
class Structure:
    """What the ranks do that are run: one of each stage, or those that stand for all of an edited program.

    parts: "prologue", "step" and "epilogue". ranks: for the ranks in these, the ranks of the program. counts: for the
    same ranks, of how many ranks of the program each stands. steps: of the first rank of each stage the list of a step,
    or one of fewer micro-batches of which as many are under way at once.
    """

    parts: dict[str, Graph]
    ranks: dict[int, int]
    counts: dict[int, int]
    steps: Mapping[int, Sequence[Instruction]]


def structure_of(program: Program) -> Structure:
    """The structure of a program. ProgramError says of its own ranks what is wrong with an edited one."""
    if program.edited:
        counts = told_apart(program)
        if counts is not None:
            return Structure(check(program, counts).parts, {rank: rank for rank in counts}, counts, _steps(program))
        program = program.original
    few = program.under(folded_plan(program))
    if callable(program.plan.schedule):  # of which nobody knows what its order depends on
        proven = _proven(few)
    else:
        proven = _in_rounds(few) or _remembered(few)
    ranks = dict(zip(few.representatives(), program.representatives(), strict=True))
    steps = {ranks[rank]: step for rank, step in proven.steps.items()}
    return Structure(proven.parts, ranks, _counts(program, ranks), steps)


def steps_of(program: Program) -> Mapping[int, Sequence[Instruction]]:
    """The `steps` of the structure of a program; of an edited one those that it has, unproven."""
    return _steps(program) if program.edited else structure_of(program).steps


def run_whole(program: Program) -> Structure:
    """The structure of a program with all its micro-batches, and all ranks if it is edited; else one of each stage.

    That of an edited program is proven: ProgramError if it is wrong. The other is not.
    """
    ranks = program.representatives()
    parts = check(program).parts if program.edited else _graphs(program, ranks)
    return Structure(parts, dict(zip(ranks, ranks, strict=True)), _counts(program, ranks), _steps(program))


def _counts(program: Program, ranks: Collection[int]) -> dict[int, int]:
    """Of how many ranks each stands if all stand for equally many."""
    return dict.fromkeys(ranks, len(program) // len(ranks))


def _steps(program: Program) -> dict[int, Sequence[Instruction]]:
    """Of the first rank of each stage the list of a step as it stands."""
    return {rank: program[rank].step for rank in program.plan.mesh().ranks("pipeline")}


def _in_rounds(program: Program) -> _Parts | None:
    """What is proven of a program, made of that of one with fewer micro-batches; None where that cannot be."""
    plan, chunks = program.plan, [len(held) for held in program.layout.stages]
    for left in (LEAST, LEAST + plan.pipeline):
        count = few_micro_batches(plan, chunks, left)
        if count is None:
            return None
        few = _remembered(program.under(replace(plan, micro_batches=count)))
        if few.rounds is not None and (plan.micro_batches * plan.chunks <= CHANNEL_MESSAGES or few.rounds.has_room):
            more = (plan.micro_batches - count) // of_a_round(plan)
            step = _known.get((few.rounds, more), partial(few.rounds.more, more))
            return _Parts({**few.parts, "step": step}, few.steps)
    return None


def _remembered(program: Program) -> _Proven:
    statistics = bool(program.costs and program.costs.profile.statistics)
    return _known.get((program.make, program.plan, program.trains, statistics), lambda: _proven(program))


@dataclass(frozen=True)
class _Parts:
    """Those of a program, and the steps of a `Structure`."""

    parts: dict[str, Graph]
    steps: dict[int, Sequence[Instruction]]


@dataclass(frozen=True)
class _Proven(_Parts):
    """What was proven as it stands. of_a_round: micro-batches of a round."""

    of_a_round: int

    @cached_property
    def rounds(self) -> Rounds | None:
        """Of the step, if it has such."""
        return rounds_of(self.parts["step"], self.steps, self.of_a_round)


def _proven(program: Program) -> _Proven:
    ranks = program.representatives()
    steps = {rank: program[rank].step for rank in ranks}
    return _Proven(check(program, ranks).parts, steps, of_a_round(program.plan))


def _graphs(program: Program, ranks: tuple[int, ...]) -> dict[str, Graph]:
    members = Members(program.plan, ranks)
    return {
        part: Graph.of(Dependencies({rank: program.compiled(rank, part) for rank in ranks}, members).nodes)
        for part in PARTS
    }
