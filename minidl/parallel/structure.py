"""Structure: what waits for what in a program, proven; found once for all programs that are alike.

It depends neither on costs nor, as lists differ but for their peers, on how many ranks there are along an axis if there
are several. So it is found under a plan that has two of them, and remembered. Times are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from minidl.parallel.checker import check
from minidl.parallel.dependencies import Dependencies, Graph
from minidl.parallel.few_micro_batches import few_micro_batches, of_a_round
from minidl.parallel.finding_rounds import rounds_of
from minidl.parallel.instructions import Instruction
from minidl.parallel.meetings import CHANNEL_MESSAGES, Members
from minidl.parallel.mesh import AXES, Axis
from minidl.parallel.plan import Plan
from minidl.parallel.program import PARTS, Program
from minidl.parallel.remembered import Remembered
from minidl.parallel.rounds import LEAST, Rounds

FOLDED = 2  # ranks along an axis that stand for two or more
_known = Remembered(64)


@dataclass(frozen=True)
class Structure:
    """What the ranks do that are run: one of each stage, or all of an edited program.

    parts: "prologue", "step" and "epilogue". ranks: for the ranks in these, the ranks of the program. steps: of a rank
    of the program the list of a step, or one of fewer micro-batches of which as many are under way at once.
    """

    parts: dict[str, Graph]
    ranks: dict[int, int]
    steps: Mapping[int, Sequence[Instruction]]


def structure_of(program: Program) -> Structure:
    """The structure of a program. ProgramError if it is wrong: an edited one is proven as it stands, all of it."""
    if program.edited:
        return Structure(check(program).parts, *_every_rank(program))
    folded = program.under(folded_plan(program))
    if callable(program.plan.schedule):  # of which nobody knows what its order depends on
        proven = _proven(folded)
    else:
        proven = _in_rounds(folded) or _remembered(folded)
    ranks = dict(zip(folded.representatives(), program.representatives(), strict=True))
    return Structure(proven.parts, ranks, {ranks[rank]: step for rank, step in proven.steps.items()})


def steps_of(program: Program) -> Mapping[int, Sequence[Instruction]]:
    """The `steps` of the structure of a program; of an edited one those that it has, unproven."""
    return _every_rank(program)[1] if program.edited else structure_of(program).steps


def _every_rank(program: Program) -> tuple[dict[int, int], dict[int, Sequence[Instruction]]]:
    """What a structure of a program as it stands says of ranks."""
    ranks = program.representatives()
    return dict(zip(ranks, ranks, strict=True)), {rank: program[rank].step for rank in ranks}


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


def run_whole(program: Program) -> Structure:
    """The structure of a program whose peers are its own, unproven: of one rank of each stage, or all if edited."""
    return Structure(_graphs(program, program.representatives()), *_every_rank(program))


def folded_plan(program: Program) -> Plan:
    """A plan with the same lists but for their peers, of two ranks along each axis that has more.

    All of them remain along an axis of which instructions or layers name some coordinates.
    """
    plan = program.plan
    named = {axis[0] for axis in _axes(program) if not isinstance(axis, str)}
    sizes = {a: FOLDED for a in AXES if a not in ("pipeline", *named) and getattr(plan, a) > FOLDED}
    return replace(plan, **sizes, precision="float32")


def _axes(program: Program) -> Iterator[Axis]:
    """Along which its ranks may meet."""
    for apart in program.layout.apart:
        yield from apart.reduction.also
    for axes in program.costs.layer_axes() if program.costs else ():
        yield from axes


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
    steps = {rank: program[rank].step for rank in program.representatives()}
    return _Proven(check(program, every_rank=0).parts, steps, of_a_round(program.plan))


def _graphs(program: Program, ranks: tuple[int, ...]) -> dict[str, Graph]:
    members = Members(program.plan, ranks)
    return {
        part: Graph.of(Dependencies({rank: program.compiled(rank, part) for rank in ranks}, members).nodes)
        for part in PARTS
    }
