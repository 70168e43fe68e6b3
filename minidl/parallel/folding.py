"""Folding: many ranks of a program do alike, so a few of them show what all do.

Two coordinates along an axis are alike if each rank at the one has the list of the rank that is at the other and else
in the same place, but for its peers, which lie the same way from it. To exchange the two then changes nothing: their
ranks wait for alike ones and do alike work, so those of one of the two stand for both. But of an axis that has several
coordinates two remain: that ranks meet along it, and bring each their own samples, only two can show.

The lists that are made for a stage's ranks under a plan are alike by construction. Edited ones are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import reduce
from itertools import chain

import numpy as np

from minidl.parallel.instructions import Instruction
from minidl.parallel.mesh import AXES, Axis, axis_name
from minidl.parallel.plan import Plan
from minidl.parallel.program import PARTS, PEERS, Program, RankProgram

FOLDED = 2  # coordinates of an axis that stand for two or more which are alike


def folded_plan(program: Program) -> Plan:
    """Of an unedited program, a plan with the same lists but for their peers, of two ranks along each axis of more.

    All of them remain along an axis of which instructions or layers name some coordinates. In one precision, as lists
    are the same in all.
    """
    plan, whole = program.plan, {"pipeline", *_named(_axes(program))}
    sizes = {a: FOLDED for a in AXES if a not in whole and getattr(plan, a) > FOLDED}
    return replace(plan, **sizes, precision="float32")


def told_apart(program: Program) -> dict[int, int] | None:
    """Of an edited program the ranks that stand for all, and for how many each.

    None if no list is another than the one that was made for its rank.
    """
    everyone = range(len(program))
    messages = {(rank, _peer(i)) for rank, own in program.edited.items() for i in own if i.kind in PEERS}
    if not all(peer in everyone for _, peer in messages):
        return dict.fromkeys(everyone, 1)
    edited, lists = _edited_lists(program)
    if not edited:
        return None
    whole = _whole_axes(program, edited, messages)
    groups = [
        [[n] for n in range(size)] if axis in whole else _alike(np.moveaxis(lists, dimension, 0))
        for dimension, (axis, size) in enumerate(zip(AXES, lists.shape, strict=True))
    ]
    ranks = np.arange(len(program)).reshape(lists.shape)[np.ix_(*([group[0] for group in found] for found in groups))]
    counts = reduce(np.multiply.outer, ([len(group) for group in found] for found in groups))
    return dict(zip(ranks.ravel().tolist(), counts.ravel().tolist(), strict=True))


# What tells coordinates apart


def _axes(program: Program) -> Iterator[Axis]:
    """Along which ranks of a program as it was made may meet."""
    for apart in program.layout.apart:
        yield from apart.reduction.also
    for axes in program.costs.layer_axes() if program.costs else ():
        yield from axes


def _named(axes: Iterable[Axis]) -> set[str]:
    """The axes of which coordinates are named, or that are grids."""
    return {axis_name(axis) for axis in axes if not isinstance(axis, str)}


def _peer(i: Instruction) -> int | None:
    """The rank at the other end of a message; None where it is no field of it."""
    return vars(i).get(PEERS[i.kind])


def _whole_axes(program: Program, edited: Mapping[int, RankProgram], messages: Iterable[tuple[int, int]]) -> set[str]:
    """The axes of which all coordinates remain. messages: of edited ranks, from a rank to another."""
    collectives = (i for own in edited.values() for i in own if i.kind == "collective")
    named = _named(chain(_axes(program), *(i.axes for i in collectives)))
    ends = np.unravel_index(np.array(list(messages), int).reshape(-1, 2), program.plan.mesh().shape)
    crossed = {axis for axis, found in zip(AXES, ends, strict=True) if (found[:, 0] != found[:, 1]).any()}
    return {"pipeline"} | named | crossed


def _edited_lists(program: Program) -> tuple[dict[int, RankProgram], np.ndarray]:
    """The edited lists that are others than were made for their ranks; and for each rank a number for its list.

    These lie in an array with a dimension for each of the AXES.
    """
    lists, made, of_a_stage = _Lists(), program.original, len(program) // program.plan.pipeline
    firsts = range(0, len(program), of_a_stage)
    numbers = np.repeat([lists.number(rank, made[rank]) for rank in firsts], of_a_stage)
    edited = {}
    for rank, own in program.edited.items():
        number = lists.number(rank, own)
        if number != numbers[rank]:
            numbers[rank], edited[rank] = number, own
    return edited, numbers.reshape(program.plan.mesh().shape)


class _Lists:
    """Numbers for lists: equal for those that are equal but for their peers, which lie the same way from the rank."""

    def __init__(self):
        self._lists: dict[tuple, int] = {}
        self._works: dict[tuple, int] = {}
        self._known: dict[int, tuple[tuple, int]] = {}  # the same by the identity of a work, which is kept with it

    def number(self, rank: int, own: RankProgram) -> int:
        does = tuple(tuple([self._does(rank, i) for i in getattr(own, part)]) for part in PARTS)
        return self._lists.setdefault(does, len(self._lists))

    def _does(self, rank: int, i: Instruction) -> tuple:
        """Equal where an instruction is equal but for its peer."""
        work, own, peer = i.work, vars(i), PEERS.get(i.kind)
        if id(work) not in self._known:
            alike = work if peer is None else i.work_in({})
            self._known[id(work)] = work, self._works.setdefault(alike, len(self._works))
        return self._known[id(work)][1], own.get("micro_batch"), None if peer is None else own[peer] - rank


def _alike(lists: np.ndarray) -> list[list[int]]:
    """Groups of alike coordinates along the first dimension. Two of a single group, where there are as many."""
    found: dict[bytes, list[int]] = {}
    for coordinate, there in enumerate(lists):
        found.setdefault(there.tobytes(), []).append(coordinate)
    groups = list(found.values())
    if len(groups) < FOLDED <= len(lists):
        groups = [groups[0][:1], groups[0][1:]]
    return groups
