"""Structure: what waits for what in a program, proven; found once for all programs that are alike.

It depends neither on costs nor, as lists differ but for their peers, on how many ranks there are along an axis if there
are several. So it is found under a plan that has two of them, and remembered. Times are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from minidl.parallel.checker import check
from minidl.parallel.dependencies import Dependencies, Graph
from minidl.parallel.meetings import CHANNEL_MESSAGES, Members
from minidl.parallel.mesh import AXES, Axis
from minidl.parallel.plan import Plan
from minidl.parallel.program import PARTS, Program
from minidl.parallel.remembered import Remembered
from minidl.parallel.rounds import LEAST, Rounds, few_micro_batches, of_a_round, rounds_of

FOLDED = 2  # ranks along an axis that stand for two or more
EVERY_RANK = 16  # workers of a folded plan up to which all of them are proven
_known = Remembered(64)


@dataclass(frozen=True)
class Structure:
    """What the ranks do that are run: one of each stage, or all of an edited program.

    parts: "prologue", "step" and "epilogue". ranks: for the ranks in these, the ranks of the program.
    """

    parts: dict[str, Graph]
    ranks: dict[int, int]


def structure_of(program: Program) -> Structure:
    """The structure of a program. ProgramError if it is wrong: an edited one is proven as it stands, all of it."""
    if program.edited:
        return Structure(check(program).parts, {rank: rank for rank in range(program.world_size)})
    folded = program.under(folded_plan(program))
    if callable(program.plan.schedule):  # of which nobody knows what its order depends on
        parts = _proven(folded).parts
    else:
        parts = _in_rounds(folded) or _remembered(folded).parts
    numbers = folded.representatives(), program.representatives()
    return Structure(parts, dict(zip(*numbers, strict=True)))


def _in_rounds(program: Program) -> dict[str, Graph] | None:
    """The parts of a program, made of those of one with fewer micro-batches; None where that cannot be."""
    plan, chunks = program.plan, [len(held) for held in program.layout.stages]
    for left in (LEAST, LEAST + plan.pipeline):
        count = few_micro_batches(plan, chunks, left)
        if count is None:
            return None
        few = _remembered(program.under(replace(plan, micro_batches=count)))
        if few.rounds is not None and (plan.micro_batches * plan.chunks <= CHANNEL_MESSAGES or few.rounds.has_room):
            more = (plan.micro_batches - count) // of_a_round(plan)
            return {**few.parts, "step": few.rounds.more(more)}
    return None


def _remembered(program: Program) -> _Proven:
    statistics = bool(program.costs and program.costs.profile.statistics)
    return _known.get((program.make, program.plan, program.trains, statistics), lambda: _proven(program))


def run_whole(program: Program) -> Structure:
    """The structure of a program whose peers are its own, unproven: of one rank of each stage, or all if edited."""
    ranks = program.representatives()
    return Structure(_graphs(program, ranks), {rank: rank for rank in ranks})


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
class _Proven:
    """The parts of a program, and the rounds of its step, if it has such."""

    parts: dict[str, Graph]
    rounds: Rounds | None


def _proven(program: Program) -> _Proven:
    report, ranks = check(program, EVERY_RANK), program.representatives()
    parts = report.parts if len(report.peak_micro_batches) == len(ranks) else _graphs(program, ranks)
    lists = {rank: program[rank].step for rank in ranks}
    return _Proven(parts, rounds_of(parts["step"], lists, of_a_round(program.plan)))


def _graphs(program: Program, ranks: tuple[int, ...]) -> dict[str, Graph]:
    members = Members(program.plan, ranks)
    return {
        part: Graph.of(Dependencies({rank: program.compiled(rank, part) for rank in ranks}, members).nodes)
        for part in PARTS
    }
