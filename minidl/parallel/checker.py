"""Proofs over a Program, before a process starts.

The checker runs the instruction lists by the machine that the worker and the simulator run them by, with tags instead
of numbers in the buffers: which samples, through which blocks; which version of the parameters. So a wrong list fails
here, whatever the numbers would have looked like. It also carries clocks that count slots, for the drawing.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from minidl.parallel import instructions as I
from minidl.parallel.dependencies import Dependencies, Graph, Node
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import Instruction
from minidl.parallel.machine import Compiled, HazardError
from minidl.parallel.meetings import Channel, Members
from minidl.parallel.program import Program
from minidl.parallel.rules import COLLECTIVE_RULES, COMPUTE_RULES, rule_of
from minidl.parallel.tags import Brought, Facts, ProgramError, RankTags, Tags, Version

EVERY_RANK = 64  # workers


class Slot(NamedTuple):
    """When an instruction of `rank` runs where time is counted in slots of a forward (`Instruction.slots`)."""

    rank: int
    instruction: Instruction
    start: float
    end: float


@dataclass(frozen=True)
class Report:
    """What the proof found beside correctness.

    peak_micro_batches: for each rank checked, the most micro-batches whose activations it keeps at once; one that two
    chunks keep counts twice. parts: the prologue, the step and the epilogue: what waits for what on the ranks checked.
    """

    peak_micro_batches: dict[int, int]
    parts: dict[str, Graph]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The instructions of one step, of the ranks checked."""
        graph = self.parts["step"]
        # Into how many pieces a forward, or a backward, is cut, bucket by bucket.
        pieces = Counter(_whole(rank, i) for node in graph.nodes for rank, i in node.members if i.slots and node.ends)
        lengths = [_length(node, pieces) for node in graph.nodes]
        ended = graph.ends(lengths)[len(graph) :]
        return tuple(
            Slot(rank, i, end - length, end)
            for node, length, end in zip(graph.nodes, lengths, ended, strict=True)
            if node.ends
            for rank, i in node.members
        )


def _length(node: Node, pieces: Counter) -> float:
    return max((i.slots / pieces[_whole(rank, i)] for rank, i in node.members if i.slots and node.ends), default=0.0)


def _whole(rank: int, i: Instruction) -> tuple:
    """What those have in common that one forward, or backward, is cut into."""
    return rank, type(i), i.chunk, i.micro_batch


def check(program: Program, ranks: Iterable[int] | None = None) -> Report:
    """Prove that one step of `program` runs to its end and computes what its plan says.

    Proved: no buffer is read before it is written, overwritten or freed while in use, or left behind; no deadlock;
    every send meets its receive, in order; the members of a group agree on their collectives, and on what
    communicates inside layers;
    every micro-batch passes every block in order, with whole parameters of one version; every parameter's gradient
    contains each sample of the global batch exactly once, and every update happens, of each replica's share where the
    optimizer is sharded, whose parameters are then gathered. ProgramError says what is wrong, and where.

    ranks: those that are run, and stand for all whose lists are equal to theirs but for their peers (folding.py). By
    default all of an edited program, and of one with up to EVERY_RANK workers; of a larger one, one of each stage.
    """
    if not isinstance(program, Program):
        raise TypeError(f"check needs a Program, not a {type(program).__name__}")
    return _Checker(program, ranks).run()


class _Checker:
    def __init__(self, program: Program, ranks: Iterable[int] | None):
        self.program = program
        every = program.edited or program.world_size <= EVERY_RANK
        chosen = ranks or (range(program.world_size) if every else program.representatives())
        statistics = bool(program.costs and program.costs.profile.statistics)
        meshes = tuple(program.plan.mesh(rank) for rank in chosen)
        self.facts = Facts(program.plan, program.layout, meshes, statistics)
        self.ranks = {rank: RankTags(program, self.facts, rank) for rank in chosen}
        self.members = Members(program.plan, self.ranks)
        axes = program.costs.layer_axes() if program.costs else []
        self.layer_axes = [a for a in axes if any(len(self.members(rank, a)) > 1 for rank in self.ranks)]
        self.inside: dict[tuple, list[CollectiveCall]] = {}  # of instructions, by what they do
        self.axes: dict[int, tuple] = {}  # of these calls, by the identity of what the program's instructions do
        self.groups: dict[tuple, tuple[int, ...]] = {}
        self.messages: defaultdict[Channel, deque[tuple]] = defaultdict(deque)

    def run(self) -> Report:
        parts = {"prologue": self.run_part("prologue"), "step": self.run_part("step")}
        for rank in self.ranks.values():
            self.check_updates(rank)
        parts["epilogue"] = self.run_part("epilogue")
        return Report({rank.number: rank.peak for rank in self.ranks.values()}, parts)

    def run_part(self, part: str) -> Graph:
        """Run one part of all lists to its end."""
        self.messages.clear()
        lists = {rank.number: self.compiled(rank, part) for rank in self.ranks.values()}
        found = Dependencies(lists, self.members, self.group_inside if self.layer_axes else None)
        for node in found.nodes:
            if not node.ends:
                self.check_layers(node)
            elif node.members:
                HANDLERS[node.members[0][1].kind](self, node.members)
        self.check_end(found)
        return Graph.of(found.nodes)

    def compiled(self, rank: RankTags, part: str) -> Compiled:
        try:
            return self.program.compiled(rank.number, part)
        except HazardError as error:
            raise ProgramError(f"rank {rank.number}: {error}") from None

    def finish(self, rank: RankTags, i: Instruction, tags: Tags) -> None:
        held = rank.tags
        for buffer in i.frees:
            del held[buffer]
        for buffer in i.writes:
            held[buffer] = tags.get(buffer)

    def compute(self, members: tuple[tuple[int, Instruction]]) -> None:
        ((number, i),) = members
        rank = self.ranks[number]
        self.finish(rank, i, rule_of(COMPUTE_RULES, rank, i)(self.facts, rank, i))

    def first_calls(self, i: Instruction) -> list[CollectiveCall]:
        """The first collective that layers make over each group of several ranks that are run.

        Who does the same instruction makes the same calls, in one order: it stands for all.
        """
        if i.work not in self.inside:
            first = {call.axes: call for call in reversed(list(self.program.costs.collectives(i)))}
            self.inside[i.work] = [first[axes] for axes in self.layer_axes if axes in first]
        return self.inside[i.work]

    def group_inside(self, number: int, i: Instruction) -> tuple[int, ...] | None:
        """Those with whom a rank communicates inside the layers of an instruction, directly or through others."""
        axes = self.axes.get(id(i.work))
        if axes is None:
            axes = self.axes[id(i.work)] = tuple(call.axes for call in self.first_calls(i))
        if not axes:
            return None
        if (number, axes) not in self.groups:
            reached, new = {number}, [number]
            while new:
                new = [o for r in new for a in axes for o in self.members(r, a) if o not in reached]
                reached.update(new)
            self.groups[number, axes] = tuple(sorted(reached))
        group = self.groups[number, axes]
        return group if len(group) > 1 else None

    def check_layers(self, node: Node) -> None:
        """Those whose layers communicate with one another do the same."""
        (first, theirs), *others = node.members
        for number, own in others:
            if own != theirs:  # who does the same makes the same calls
                inside = f" in {self.first_calls(own)[0]}, {self.first_calls(theirs)[0]}"
                raise ProgramError(f"rank {number} is at {own}, rank {first} of the same group at {theirs}{inside}")

    def send(self, members: tuple[tuple[int, I.SendActivation | I.SendGradient]]) -> None:
        ((number, i),) = members
        rank = self.ranks[number]
        if i.to == number or not 0 <= i.to < self.program.world_size:
            raise ProgramError(f"rank {number}: {i} has no such peer among {self.program.world_size} ranks")
        self.messages[number, i.to].append((i.message, rank.tags[i.reads[0]]))
        self.finish(rank, i, {})

    def receive(self, members: tuple[tuple[int, I.RecvActivation | I.RecvGradient]]) -> None:
        ((number, i),) = members
        message, tag = self.messages[i.source, number].popleft()
        if (message, tag.micro_batch) != (i.message, i.micro_batch):
            raise ProgramError(
                f"rank {number} expects the {i.message} of micro-batch {i.micro_batch} from rank {i.source}, "
                f"which sends the {message} of micro-batch {tag.micro_batch} first"
            )
        self.finish(self.ranks[number], i, {i.writes[0]: tag})

    def collective(self, members: tuple[tuple[int, Instruction], ...]) -> None:
        (first, theirs), *others = members
        for number, own in others:
            if own is not theirs and _what(own) != _what(theirs):
                raise ProgramError(f"rank {number} is at {own}, rank {first} of the same group at {theirs}")
        ranks = [self.ranks[number] for number, _ in members]
        together = list(zip(ranks, (i for _, i in members), strict=True))
        brought = Brought(rank.tags[buffer] for rank, i in together for buffer in i.reads)
        for rank, i in together:
            self.finish(rank, i, rule_of(COLLECTIVE_RULES, rank, i)(self.facts, rank, i, brought))

    def check_end(self, found: Dependencies) -> None:
        stuck = [f"rank {number} at {i}" for number, i in found.stuck]
        unread = [
            f"{message} of {tag} from rank {source} to rank {to}"
            for (source, to), messages in self.messages.items()
            for message, tag in messages
        ]
        if stuck:
            never = f"; never received: {', '.join(unread)}" if unread else ""
            raise ProgramError(f"deadlock: no instruction can run any more ({'; '.join(stuck)}{never})")
        if unread:
            raise ProgramError(f"never received: {', '.join(unread)}")

    def check_updates(self, rank: RankTags) -> None:
        """Every parameter that is trained has had one update; every replica has all of it, or its share as before."""
        parameters = [buffer for buffer in rank.tags if buffer.holds == "parameters"]
        for buffer in sorted(parameters, key=lambda buffer: (buffer.chunk, buffer.bucket)):
            version = rank.tags[buffer]
            trained = self.program.trains and self.program.layout.is_trained(buffer.chunk, buffer.bucket)
            whole = (buffer.chunk, buffer.bucket) not in self.facts.dropped[rank.stage]
            if version != (expected := Version(int(trained), whole)):
                done = "updates" if version.updates != expected.updates else "gathers"
                raise ProgramError(f"rank {rank.number}: a step never {done} {buffer}, or not once")


def _what(i: Instruction) -> tuple:
    """What must be the same for all who come to a collective."""
    return type(i), getattr(i, "chunk", None), getattr(i, "bucket", None), getattr(i, "apart", None)


HANDLERS = {
    "compute": _Checker.compute,
    "send": _Checker.send,
    "receive": _Checker.receive,
    "collective": _Checker.collective,
}
