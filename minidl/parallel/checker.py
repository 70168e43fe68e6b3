"""Proofs over a Program, before a process starts.

The checker runs the instruction lists by the machine that the worker and the simulator run them by, with tags instead
of numbers in the buffers: which samples, through which blocks; which version of the parameters. So a wrong list fails
here, whatever the numbers would have looked like. It also carries clocks that count slots, for the drawing.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from minidl.parallel import instructions as I
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import Instruction
from minidl.parallel.machine import HazardError, Lane, Lanes
from minidl.parallel.meetings import Meetings, Members
from minidl.parallel.program import Program
from minidl.parallel.rules import COLLECTIVE_RULES, COMPUTE_RULES, rule_of
from minidl.parallel.tags import Brought, Facts, ProgramError, RankTags, Tags, Version

EVERY_RANK = 64  # workers up to which every rank is run


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
    chunks keep counts twice. slots: the instructions of one step, of the ranks checked.
    """

    peak_micro_batches: dict[int, int]
    slots: tuple[Slot, ...]


def check(program: Program) -> Report:
    """Prove that one step of `program` runs to its end and computes what its plan says.

    Proved: no buffer is read before it is written, overwritten or freed while in use, or left behind; no deadlock;
    every send meets its receive, in order; the members of a group agree on their collectives, and on what
    communicates inside layers;
    every micro-batch passes every block in order, with whole parameters of one version; every parameter's gradient
    contains each sample of the global batch exactly once, and every update happens, of each replica's share where the
    optimizer is sharded, whose parameters are then gathered. ProgramError says what is wrong, and where.
    """
    if not isinstance(program, Program):
        raise TypeError(f"check needs a Program, not a {type(program).__name__}")
    return _Checker(program).run()


class Times:
    """The clock of one rank. It knows slots, by what was waited for: not by the order in which the checker comes by.

    starts: of what each lane has begun last.
    """

    def __init__(self, instructions: Iterable[Instruction]):
        self.starts: dict[str, float] = {}
        self.ends: defaultdict[str, list[float]] = defaultdict(list)
        self.pieces = Counter(_whole(i) for i in instructions if i.slots)  # into how many one is cut, by bucket

    def begin(self, lane: Lane) -> None:
        """Its next instruction starts when all that it waits for is done; what the step before did is."""
        self.starts[lane.name] = max(self.ends[name][done - 1] if done > 0 else 0 for name, done in lane.waits_for())

    def wait_until(self, lane: str, time: float) -> None:
        self.starts[lane] = max(self.starts[lane], time)

    def finish(self, i: Instruction) -> tuple[float, float]:
        """When the instruction has started, and when it ends."""
        start = self.starts[i.lane]
        end = start + i.slots / self.pieces[_whole(i)] if i.slots else start
        self.ends[i.lane].append(end)
        return start, end


def _whole(i: Instruction) -> tuple:
    """What those have in common that one forward, or backward, is cut into."""
    return type(i), i.chunk, i.micro_batch


class _Checker:
    def __init__(self, program: Program):
        self.program = program
        # The ranks of a stage have equal lists but for their peers: where there are many, one of each stage will do.
        every = program.edited or program.world_size <= EVERY_RANK
        chosen = range(program.world_size) if every else program.representatives()
        statistics = bool(program.costs and program.costs.profile.statistics)
        meshes = tuple(program.plan.mesh(rank) for rank in chosen)
        self.facts = Facts(program.plan, program.layout, meshes, statistics)
        self.ranks = {rank: RankTags(program, self.facts, rank) for rank in chosen}
        self.members = Members(program.plan, self.ranks)
        axes = program.costs.layer_axes() if program.costs else []
        self.layer_axes = [a for a in axes if any(len(self.members(rank, a)) > 1 for rank in self.ranks)]
        self.inside: dict[tuple, list[CollectiveCall]] = {}  # of instructions, by what they do
        self.times: dict[int, Times] = {}
        self.slots: list[Slot] = []
        self.meetings: Meetings = Meetings()
        self.awake: deque[RankTags] = deque()  # who may be able to start something
        self.todo: deque[Callable[[], None]] = deque()  # what they waited for has come

    def run(self) -> Report:
        self.run_part("prologue")
        self.run_part("step")
        slots = tuple(self.slots)
        for rank in self.ranks.values():
            self.check_updates(rank)
        self.run_part("epilogue")
        return Report({rank.number: rank.peak for rank in self.ranks.values()}, slots)

    def run_part(self, part: str) -> None:
        """Run one part of all lists to its end."""
        self.meetings, self.slots = Meetings(), []
        self.times = {rank: Times(getattr(self.program[rank], part)) for rank in self.ranks}
        for rank in self.ranks.values():
            try:
                rank.lanes = Lanes(self.program.compiled(rank.number, part))
            except HazardError as error:
                raise ProgramError(f"rank {rank.number}: {error}") from None
            self.awake.append(rank)
        while self.awake or self.todo:
            while self.awake:
                self.advance(self.awake.popleft())
            while self.todo:
                self.todo.popleft()()
        self.check_end()

    # The machine, driven

    def advance(self, rank: RankTags) -> None:
        """Start whatever may run now."""
        for lane in rank.lanes.values():
            while (i := lane.ready()) is not None:
                self.times[rank.number].begin(lane)
                lane.begin()
                HANDLERS[i.kind](self, rank, i)

    def finish(self, rank: RankTags, i: Instruction, tags: Tags) -> None:
        for buffer in i.frees:
            del rank.tags[buffer]
        rank.tags |= {buffer: tags.get(buffer) for buffer in i.writes}
        rank.lanes[i.lane].finish()
        self.slots.append(Slot(rank.number, i, *self.times[rank.number].finish(i)))
        self.awake.append(rank)

    def compute(self, rank: RankTags, i: Instruction) -> None:
        tags = rule_of(COMPUTE_RULES, rank, i)(self.facts, rank, i)
        inside = iter(())
        if self.layer_axes:  # where a layer's group has more than one member that is run
            inside = iter(self.first_calls(i))

        def go_on(_=None) -> None:
            call = next(inside, None)
            if call is None:
                self.finish(rank, i, tags)
            else:
                self.meet(rank, "layers", call.axes, i, (i, call), go_on)

        go_on()

    def first_calls(self, i: Instruction) -> list[CollectiveCall]:
        """The first collective that layers make over each group of several ranks that are run.

        Who does the same instruction makes the same calls, in one order: it stands for all.
        """
        if i.work not in self.inside:
            first = {call.axes: call for call in reversed(list(self.program.costs.collectives(i)))}
            self.inside[i.work] = [first[axes] for axes in self.layer_axes if axes in first]
        return self.inside[i.work]

    def send(self, rank: RankTags, i: I.SendActivation | I.SendGradient) -> None:
        if i.to == rank.number or not 0 <= i.to < self.program.world_size:
            raise ProgramError(f"rank {rank.number}: {i} has no such peer among {self.program.world_size} ranks")
        channel = rank.number, i.to
        if not self.meetings.has_room(channel):
            self.meetings.when_room(channel, lambda: self.todo.append(partial(self.send, rank, i)))
            return
        self.meetings.put(channel, (i.message, rank.tags[i.reads[0]], self.times[rank.number].starts[i.lane]))
        self.finish(rank, i, {})

    def receive(self, rank: RankTags, i: I.RecvActivation | I.RecvGradient) -> None:
        channel = i.source, rank.number
        if not self.meetings.has_message(channel):
            self.meetings.when_message(channel, lambda: self.todo.append(partial(self.receive, rank, i)))
            return
        message, tag, sent = self.meetings.take(channel)
        self.times[rank.number].wait_until(i.lane, sent)
        if (message, tag.micro_batch) != (i.message, i.micro_batch):
            raise ProgramError(
                f"rank {rank.number} expects the {i.message} of micro-batch {i.micro_batch} from rank {i.source}, "
                f"which sends the {message} of micro-batch {tag.micro_batch} first"
            )
        self.finish(rank, i, {i.writes[0]: tag})

    def collective(self, rank: RankTags, i: Instruction) -> None:
        rule = rule_of(COLLECTIVE_RULES, rank, i)

        def end(brought: Brought) -> None:
            self.finish(rank, i, rule(self.facts, rank, i, brought))

        what = type(i), getattr(i, "chunk", None), getattr(i, "bucket", None), getattr(i, "apart", None)
        self.meet(rank, "instructions", i.axes, i, what, end, [rank.tags[buffer] for buffer in i.reads])

    def meet(self, rank: RankTags, among: str, axes, i: Instruction, what: tuple, end: Callable, brought=()) -> None:
        """Come to a collective; `end` is called with what all have brought when the last one has come.

        what: must be the same for all who come.
        """
        members = self.members(rank.number, axes)
        everyone = self.meetings.join((among, axes, members), len(members), rank.number, (i, what, end, brought))
        if everyone is None:
            return
        (first, (theirs, needed, *_)), *_ = everyone.items()
        for number, (own, found, *_) in everyone.items():
            if found != needed:
                inside = f" in {found[1]}, {needed[1]}" if among == "layers" else ""
                raise ProgramError(f"rank {number} is at {own}, rank {first} of the same group at {theirs}{inside}")
        latest = max(self.times[number].starts[own.lane] for number, (own, *_) in everyone.items())
        for number, (own, *_) in everyone.items():
            self.times[number].wait_until(own.lane, latest)
        all_brought = Brought(tag for *_, tags in everyone.values() for tag in tags)
        self.todo.extend(partial(end, all_brought) for _, _, end, _ in everyone.values())

    def check_end(self) -> None:
        stuck = [f"rank {r.number} at {i}" for r in self.ranks.values() for i in r.lanes.unfinished()]
        unread = [
            f"{message} of {tag} from rank {source} to rank {to}"
            for (source, to), messages in self.meetings.messages.items()
            for message, tag, _ in messages
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


HANDLERS = {
    "compute": _Checker.compute,
    "send": _Checker.send,
    "receive": _Checker.receive,
    "collective": _Checker.collective,
}
