"""Runs a Program against a cluster's clocks: a discrete-event simulation.

The machine (minidl.parallel.machine) says what may run, as it tells the worker. A lane needs its stream to do anything.
On a GPU each lane has its own; on a CPU all need the rank's only thread, which takes up communication between two
compute instructions, as the worker does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from minidl.parallel import instructions as I
from minidl.parallel.instructions import Instruction
from minidl.parallel.machine import Compiled, Lanes
from minidl.parallel.meetings import Meetings, Members
from minidl.parallel.program import Program
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES, Event, Trace
from minidl.validation import check_count
from simulator.clock import Action, Clock
from simulator.inside_layers import InsideLayers
from simulator.prices import Prices
from simulator.segments import Placed
from simulator.shared_cores import SharedCores
from simulator.step_times import StepTimes
from simulator.waiting import Meeting, PendingCollective, Stream

TURNS = (MESSAGES, COLLECTIVES, COMPUTE)  # who takes a thread first: another rank may wait for a message


class SimulationError(RuntimeError):
    """The program did not run to its end."""


class Rank:
    """A rank: how far it has come in the part of its list that is run, and the stream of each lane."""

    def __init__(self, number: int, lanes: Collection[str], one_thread: bool):
        thread = Stream()
        self.number, self.lanes = number, Lanes({})
        self.in_layers = Stream()  # of the collectives inside layers
        self.pending: dict[tuple, PendingCollective] = {}  # those of them that go on beside kernels
        self.streams = {lane: thread if one_thread else Stream() for lane in TURNS if lane in lanes}

    def take_up(self, compiled: Compiled, steps: int) -> None:
        """Go on to this part."""
        self.lanes = Lanes(compiled, steps)
        self.turns = [(self.lanes[name], stream) for name, stream in self.streams.items() if name in self.lanes]


class Engine(StepTimes):
    """Some steps of `program`, one after the other without a pause, at `prices`. Ranks that behave alike are run once.

    steps: how many.
    """

    def __init__(self, program: Program, prices: Prices, steps: int = 2):
        check_count("steps", steps)
        self.program, self.prices, self.steps = program, prices, steps
        self.clock = Clock()
        self.processors = prices.cluster.processors
        shared = self.processors
        self.cores = SharedCores(self.clock, shared.cores, shared.oversubscription) if shared else None
        self.turn = shared.turn_seconds if shared and program.world_size > shared.cores else 0.0
        numbers = range(program.world_size) if self.processors else program.representatives()
        lanes = {number: {i.lane for i in program[number]} for number in numbers}
        self.ranks = {number: Rank(number, lanes[number], one_thread=self.cores is not None) for number in numbers}
        self.members = Members(program.plan, self.ranks)
        layer_axes = program.costs.layer_axes() if program.costs else []
        # Where nobody here shares the collectives inside layers, they are simply part of an instruction's time.
        self.in_layers = any(len(self.members(number, axes)) > 1 for number in self.ranks for axes in layer_axes)
        self.meetings: Meetings = Meetings()
        self.records: list[tuple] = []  # (rank, lane, step, instruction, since when, what ran when)
        self.in_step = False
        self.prologue_seconds = 0.0
        self.step_ends = [0.0] * steps  # when the last compute lane has ended it

    def run(self) -> float:
        """Simulate; returns `step_seconds`. SimulationError names the instructions that could not run."""
        self._run_part("prologue", 1)
        self.prologue_seconds = self.clock.now
        self._run_part("step", self.steps)
        if self.steps == 1:
            self.step_ends = [self.clock.now]
        self._run_part("epilogue", 1)
        return self.step_seconds

    def _run_part(self, part: str, steps: int) -> None:
        """Run one part of all lists, some times over, to its end."""
        self.in_step = part == "step"
        for rank in self.ranks.values():
            rank.take_up(self.program.compiled(rank.number, part), steps)
            self.clock.after(0.0, lambda rank=rank: self.advance(rank))
        self.clock.run()
        stuck = [f"rank {rank.number} at {i}" for rank in self.ranks.values() for i in rank.lanes.unfinished()]
        if stuck:
            raise SimulationError(f"the program does not run to its end: {'; '.join(stuck)}")

    def trace(self) -> Trace:
        """What happened in all steps, with the collectives inside layers as events of the collectives lane."""
        events = []
        for rank, lane, step, instruction, since, found in self.records:
            for start, end, call in found:
                where, what = (COLLECTIVES, call.name) if call else (lane, instruction.name)
                details = self.prices.details(rank, instruction, call)
                events.append(Event(rank, where, what, since + start, since + end, step, details))
        return Trace(events, "simulated", self.program.world_size)

    def busy_and_exposed(self) -> tuple[float, float]:
        """Seconds of the last step in which a rank computes, and in which it communicates and does not: means."""
        trace = self.trace()
        busy = trace.busy_fractions.values()
        return self.step_seconds * sum(busy) / len(busy), trace.exposed_communication

    # One rank

    def advance(self, rank: Rank) -> None:
        """Take up the next instruction of each lane that may start."""
        for lane, stream in rank.turns:
            instruction = lane.ready()
            if instruction is not None:
                lane.begin()
                HANDLERS[instruction.kind](self, rank, stream, instruction)

    def finish(self, rank: Rank, stream: Stream, instruction: Instruction) -> None:
        """The instruction is done, and with it the use of the stream."""
        lane = rank.lanes[instruction.lane]
        if lane.name == COMPUTE and self.in_step:
            self.step_ends[lane.step] = self.clock.now
        lane.finish()
        self.advance(rank)  # before the stream is free: what waits for it already goes first
        stream.release()

    def work(self, rank: Rank, seconds: float, done: Action, contention: float = 1.0) -> None:
        """Spend `seconds` of work: on the rank's core where cores are shared, of time alone otherwise.

        contention: by what factor it is slower while all cores are busy.
        """
        if self.cores:
            self.cores.work(self.processors.core_of(rank.number), seconds, contention, done)
        else:
            self.clock.after(seconds, done)

    def record(self, rank: Rank, instruction: Instruction, since: float, found: list[Placed]) -> None:
        """For the trace: what of an instruction ran when, from `since` on."""
        lane = rank.lanes[instruction.lane]
        self.records.append((rank.number, lane.name, lane.step, instruction, since, found))

    def record_whole(self, rank: Rank, instruction: Instruction, start: float) -> None:
        """For the trace: an instruction ends now."""
        self.record(rank, instruction, 0.0, [Placed(start, self.clock.now, None)])

    # Compute

    def compute(self, rank: Rank, stream: Stream, instruction: Instruction) -> None:
        if not (self.cores or self.in_layers):

            def run_whole():
                found, seconds = self.prices.placed(rank.number, instruction)
                self.record(rank, instruction, self.clock.now, found)
                self.clock.after(seconds, lambda: self.finish(rank, stream, instruction))

            stream.acquire(run_whole)
        else:
            stream.acquire(InsideLayers(self, rank, stream, instruction).go_on)

    # Communication

    def collective(self, rank: Rank, stream: Stream, instruction: Instruction) -> None:
        seconds = self.prices.collective(rank.number, instruction)
        holds_stream = True  # given up while others are waited for, and only then

        # `meet` may call share, and `leave` done, of this rank and of others, before they return.

        def arrive():
            if not self.meet(rank, "instructions", instruction.axes, share, done):
                give_way()

        def share(meeting: Meeting):
            if holds_stream:
                work(meeting)
            else:
                stream.acquire(lambda: work(meeting))

        def work(meeting: Meeting):
            nonlocal holds_stream
            holds_stream = True
            self.work(rank, seconds, lambda: worked(meeting))

        def worked(meeting: Meeting):
            if not self.leave(meeting):
                give_way()

        def done(start: float):
            self.record_whole(rank, instruction, start)
            if holds_stream:
                self.finish(rank, stream, instruction)
            else:
                stream.acquire(lambda: self.finish(rank, stream, instruction))

        def give_way():
            nonlocal holds_stream
            holds_stream = False
            stream.release()

        stream.acquire(arrive)

    def meet(
        self, rank: Rank, among: str, axes, share: Callable[[Meeting], None], end: Callable[[float], None]
    ) -> bool:
        """Join the group's next collective; true if that was the last to come.

        Once all are there, each does its share; after the last, all end.
        """
        members = self.members(rank.number, axes)
        everyone = self.meetings.join((among, axes, members), len(members), rank.number, (share, end))
        if everyone is None:
            return False
        meeting = Meeting(self.clock.now, len(members), [end for _, end in everyone.values()])
        for share, _ in everyone.values():
            share(meeting)
        return True

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

    def send(self, rank: Rank, stream: Stream, instruction: I.SendActivation | I.SendGradient) -> None:
        seconds = self.prices.send(rank.number, instruction.to, instruction)
        channel = (rank.number, instruction.to)

        def transfer():
            start = self.clock.now
            self.work(rank, seconds, lambda: sent(start))

        def sent(start: float):
            self.record_whole(rank, instruction, start)
            self.meetings.put(channel, start)
            self.finish(rank, stream, instruction)

        if self.meetings.has_room(channel):
            stream.acquire(transfer)
        else:
            self.meetings.when_room(channel, lambda: stream.acquire(transfer))

    def receive(self, rank: Rank, stream: Stream, instruction: I.RecvActivation | I.RecvGradient) -> None:
        seconds = self.prices.receive(instruction.source, rank.number, instruction)
        channel, posted = (instruction.source, rank.number), self.clock.now

        def take():
            sent = self.meetings.take(channel)
            # Between devices the receiver's lane is busy as long as the sender's; on a CPU it copies afterwards.
            start = self.clock.now if self.cores else max(posted, sent)
            self.work(rank, seconds, lambda: taken(start))

        def taken(start: float):
            self.record_whole(rank, instruction, start)
            self.finish(rank, stream, instruction)

        if self.meetings.has_message(channel):
            stream.acquire(take)
        else:
            self.meetings.when_message(channel, lambda: self.take_turns(lambda: stream.acquire(take)))


HANDLERS = {
    "compute": Engine.compute,
    "send": Engine.send,
    "receive": Engine.receive,
    "collective": Engine.collective,
}
