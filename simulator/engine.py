"""Runs a Program against a cluster's clocks: a discrete-event simulation.

The rules are the worker's. Each lane of a rank runs its instructions first-in first-out; an instruction waits for the
buffers it reads; a receive waits for its message, a collective for its group. A lane needs its stream to do anything.
On a GPU each lane has its own; on a CPU both need the rank's only thread, which takes up communication between two
compute instructions, as the worker does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from minidl.parallel import instructions as I
from minidl.parallel.program import Program
from minidl.trace import COMMUNICATION, COMPUTE, Event, Trace
from simulator.clock import Clock, SharedCores
from simulator.prices import Prices, Segment

Action = Callable[[], None]


class SimulationError(RuntimeError):
    """The program did not run to its end."""


class Stream:
    """Does one thing at a time; who comes while it is busy waits in a queue."""

    def __init__(self):
        self.busy = False
        self.waiting: deque[Action] = deque()

    def acquire(self, action: Action) -> None:
        if self.busy:
            self.waiting.append(action)
        else:
            self.busy = True
            action()

    def release(self) -> None:
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.busy = False


@dataclass
class Lane:
    """The instructions of a lane that are still to run; `begun`: the first of them has been taken up."""

    name: str
    queue: deque[I.Instruction]
    stream: Stream
    begun: bool = False


@dataclass
class Rank:
    """A rank's lanes, communication first, and the buffers that exist."""

    number: int
    lanes: tuple[Lane, Lane]
    buffers: set = field(default_factory=set)


@dataclass
class Meeting:
    """A collective: each rank that arrives leaves its share of the work; the last one to finish its share ends it."""

    shares: list[Callable[[Meeting], None]] = field(default_factory=list)
    ends: list[Callable[[float], None]] = field(default_factory=list)  # told when all had arrived
    start: float = 0.0
    unfinished: int = 0


class Engine:
    """One step of `program` at `prices`. Ranks that behave alike are run once."""

    def __init__(self, program: Program, prices: Prices):
        self.program, self.prices = program, prices
        self.clock = Clock()
        self.processors = prices.cluster.processors
        shared = self.processors
        self.cores = SharedCores(self.clock, shared.cores, shared.sharing) if shared else None
        self.turn = shared.turn_seconds if shared and program.world_size > shared.cores else 0.0
        numbers = range(program.world_size) if self.processors else program.representatives()
        self.ranks = {number: self._rank(number) for number in numbers}
        self.meshes = {number: program.plan.mesh(number) for number in numbers}
        self.meetings: dict[tuple, Meeting] = {}
        self.counts: dict[tuple, int] = {}  # (rank, axes) -> how many collectives it has joined
        self.messages: dict[tuple[int, int], deque[float]] = {}  # (from, to) -> when each was sent
        self.receivers: dict[tuple[int, int], Action] = {}  # who waits for one
        self.records: list[tuple] = []  # (rank, lane, start, name, end or segments)

    def _rank(self, number: int) -> Rank:
        step, thread = self.program[number].step, Stream()
        lanes = (
            Lane(lane, deque(i for i in step if i.lane == lane), thread if self.cores else Stream())
            for lane in (COMMUNICATION, COMPUTE)
        )
        return Rank(number, tuple(lanes))

    def run(self) -> float:
        """Simulate; returns the step's seconds. SimulationError names the instructions that could not run."""
        for rank in self.ranks.values():
            self.clock.after(0.0, lambda rank=rank: self.advance(rank))
        self.clock.run()
        stuck = [f"rank {r.number} at {lane.queue[0]}" for r in self.ranks.values() for lane in r.lanes if lane.queue]
        if stuck:
            raise SimulationError(f"the program does not run to its end: {'; '.join(stuck)}")
        return self.clock.now

    def trace(self) -> Trace:
        """What happened, with the collectives inside layers as events of the communication lane."""
        events = []
        for rank, lane, start, name, end in self.records:
            if isinstance(end, float):
                events.append(Event(rank, lane, name, start, end))
                continue
            for segment in end:
                call, stop = segment.collective, start + segment.seconds
                events.append(Event(rank, COMMUNICATION if call else lane, call.name if call else name, start, stop))
                start = stop
        return Trace(events, "simulated", self.program.world_size)

    # One rank

    def advance(self, rank: Rank) -> None:
        """Take up the next instruction of each lane, if the buffers it reads are there."""
        for lane in rank.lanes:
            if lane.queue and not lane.begun and rank.buffers.issuperset(lane.queue[0].reads):
                lane.begun = True
                HANDLERS[type(lane.queue[0])](self, rank, lane, lane.queue[0])

    def finish(self, rank: Rank, lane: Lane) -> None:
        """The lane's instruction is done, and with it the use of the stream."""
        instruction = lane.queue.popleft()
        lane.begun = False
        rank.buffers.update(instruction.writes)
        rank.buffers.difference_update(instruction.frees)
        self.advance(rank)  # before the stream is free: what waits for it already goes first
        lane.stream.release()

    def work(self, rank: Rank, seconds: float, contention: float, done: Action) -> None:
        """Spend `seconds` of work: on the rank's core where cores are shared, of time alone otherwise."""
        if self.cores:
            self.cores.work(self.processors.core_of(rank.number), seconds, contention, done)
        else:
            self.clock.after(seconds, done)

    def record(self, rank: Rank, lane: str, name: str, start: float) -> None:
        self.records.append((rank.number, lane, start, name, self.clock.now))

    # Compute

    def compute(self, rank: Rank, lane: Lane, instruction: I.Instruction) -> None:
        segments = self.prices.segments(rank.number, instruction)
        if self.cores is None and len(self.members(rank, ("tensor",))) == 1:
            # Nobody here shares the collectives inside: they are simply part of its time.
            def run_whole():
                self.records.append((rank.number, COMPUTE, self.clock.now, instruction.name, segments))
                self.clock.after(sum(s.seconds for s in segments), lambda: self.finish(rank, lane))

            lane.stream.acquire(run_whole)
        else:
            lane.stream.acquire(lambda: self.run_segments(rank, lane, instruction.name, deque(segments)))

    def run_segments(self, rank: Rank, lane: Lane, name: str, segments: deque[Segment]) -> None:
        """Kernels and collectives inside layers, in turn; the rank keeps its stream throughout."""
        if not segments:
            self.finish(rank, lane)
            return
        segment, began = segments.popleft(), self.clock.now

        def done(start: float):
            where, what = (COMMUNICATION, segment.collective.name) if segment.collective else (COMPUTE, name)
            self.record(rank, where, what, start)
            self.run_segments(rank, lane, name, segments)

        if segment.collective is None:
            self.work(rank, segment.seconds, segment.contention, lambda: done(began))
        else:

            def share(meeting: Meeting):
                self.work(rank, segment.seconds, segment.contention, lambda: self.leave(meeting))

            self.meet(rank, tuple(segment.collective.axis.split("+")), share, done)

    # Communication

    def collective(self, rank: Rank, lane: Lane, instruction) -> None:
        seconds, contention = self.prices.collective(rank.number, instruction)
        holds_stream = True  # given up while others are waited for, and only then

        # `meet` may call share, and `leave` done, of this rank and of others, before they return.

        def arrive():
            if not self.meet(rank, instruction.axes, share, done):
                give_way()

        def share(meeting: Meeting):
            if holds_stream:
                work(meeting)
            else:
                lane.stream.acquire(lambda: work(meeting))

        def work(meeting: Meeting):
            nonlocal holds_stream
            holds_stream = True
            self.work(rank, seconds, contention, lambda: worked(meeting))

        def worked(meeting: Meeting):
            if not self.leave(meeting):
                give_way()

        def done(start: float):
            self.record(rank, COMMUNICATION, instruction.name, start)
            if holds_stream:
                self.finish(rank, lane)
            else:
                lane.stream.acquire(lambda: self.finish(rank, lane))

        def give_way():
            nonlocal holds_stream
            holds_stream = False
            lane.stream.release()

        lane.stream.acquire(arrive)

    def members(self, rank: Rank, axes: tuple[str, ...]) -> list[int]:
        return [number for number in self.meshes[rank.number].ranks(*axes) if number in self.ranks]

    def meet(self, rank: Rank, axes, share: Callable[[Meeting], None], end: Callable[[float], None]) -> bool:
        """Join the group's next collective; true if that was the last to come.

        Once all are there, each does its share; after the last, all end.
        """
        members = self.members(rank, axes)
        number = self.counts[rank.number, axes] = self.counts.get((rank.number, axes), 0) + 1
        meeting = self.meetings.setdefault((members[0], axes, number), Meeting())
        meeting.shares.append(share)
        meeting.ends.append(end)
        complete = len(meeting.shares) == len(members)
        if complete:
            meeting.start, meeting.unfinished = self.clock.now, len(members)
            del self.meetings[members[0], axes, number]
            for share in meeting.shares:
                share(meeting)
        return complete

    def leave(self, meeting: Meeting) -> bool:
        """True if this was the last to leave and all have gone on; where ranks share cores they take turns first."""
        meeting.unfinished -= 1
        if meeting.unfinished:
            return False

        def go_on():
            for end in meeting.ends:
                end(meeting.start)

        self.take_turns(go_on)
        return not self.turn

    def take_turns(self, action: Action) -> None:
        """Do it when those who waited for others have their cores: at once where each has its own."""
        if self.turn:
            self.clock.after(self.turn, action)
        else:
            action()

    def send(self, rank: Rank, lane: Lane, instruction) -> None:
        seconds, contention = self.prices.send(rank.number, instruction)
        channel = (rank.number, instruction.to)

        def transfer():
            start = self.clock.now
            self.work(rank, seconds, contention, lambda: sent(start))

        def sent(start: float):
            self.record(rank, COMMUNICATION, instruction.name, start)
            self.messages.setdefault(channel, deque()).append(start)
            if channel in self.receivers:
                self.take_turns(self.receivers.pop(channel))
            self.finish(rank, lane)

        lane.stream.acquire(transfer)

    def receive(self, rank: Rank, lane: Lane, instruction) -> None:
        seconds, contention = self.prices.receive(rank.number, instruction)
        channel, posted = (instruction.source, rank.number), self.clock.now

        def take():
            sent = self.messages[channel].popleft()
            # Between devices the receiver's lane is busy as long as the sender's; on a CPU it copies afterwards.
            start = self.clock.now if self.cores else max(posted, sent)
            self.work(rank, seconds, contention, lambda: taken(start))

        def taken(start: float):
            self.record(rank, COMMUNICATION, instruction.name, start)
            self.finish(rank, lane)

        if self.messages.get(channel):
            lane.stream.acquire(take)
        else:
            self.receivers[channel] = lambda: lane.stream.acquire(take)


HANDLERS: dict[type, Callable] = {
    I.LoadInput: Engine.compute,
    I.LoadTarget: Engine.compute,
    I.Forward: Engine.compute,
    I.Infer: Engine.compute,
    I.Loss: Engine.compute,
    I.Score: Engine.compute,
    I.Backward: Engine.compute,
    I.MeasureParameters: Engine.compute,
    I.OptimizerStep: Engine.compute,
    I.EndEvaluation: Engine.compute,
    I.SendActivation: Engine.send,
    I.SendGradient: Engine.send,
    I.RecvActivation: Engine.receive,
    I.RecvGradient: Engine.receive,
    I.ReduceGradients: Engine.collective,
    I.ReduceLoss: Engine.collective,
    I.ReduceScatterGradients: Engine.collective,
    I.GatherParameters: Engine.collective,
    I.ReduceNorm: Engine.collective,
    I.ReduceParameterNorms: Engine.collective,
}
