"""How a simulation runs a compute instruction that shares: its core, or the collectives inside its layers."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import Instruction
from minidl.trace import COMPUTE
from simulator.prices import Segment
from simulator.waiting import Begun, Meeting, Stream

if TYPE_CHECKING:
    from simulator.engine import Engine, Rank


class InsideLayers:
    """The kernels and collectives of an instruction of `rank`, in turn; it keeps its stream until all are done."""

    def __init__(self, engine: Engine, rank: Rank, stream: Stream, instruction: Instruction):
        self.engine, self.rank, self.stream, self.instruction = engine, rank, stream, instruction
        self.step = rank.lanes[COMPUTE].step
        self.segments = deque(engine.prices.segments(rank.number, instruction))

    def go_on(self, since: float | None = None) -> None:
        """The next segment. since: when the kernels began that it goes on from, where nothing has interrupted them."""
        if not self.segments:
            self.engine.finish(self.rank, self.stream, self.instruction)
            return
        segment = self.segments.popleft()
        call = segment.collective
        if call is None:
            self.kernels(segment, since)
        elif call.phase == "wait":
            self.rank.begun.pop((call.axes, call.number)).wait(self.engine.clock.now, self.go_on)
        elif call.name == "send" and self.engine.cores:
            self.send(segment)
        else:
            self.collective(segment, since)

    def kernels(self, segment: Segment, since: float | None) -> None:
        start = self.engine.clock.now if since is None else since

        def done() -> None:
            if self.segments and self.goes_by(self.segments[0]):
                self.go_on(start)
            else:
                self.record(None, start)
                self.go_on()

        self.engine.work(self.rank, segment.seconds, segment.contention, done)

    def goes_by(self, segment: Segment) -> bool:
        """Whether it does not interrupt the kernels: a collective is only begun."""
        call = segment.collective
        return call is not None and call.phase == "start" and not (call.name == "send" and self.engine.cores)

    def send(self, segment: Segment) -> None:
        """On a core the sender copies at once, and waits for nobody."""
        begun, start = self.begin(segment.collective), self.engine.clock.now

        def sent() -> None:
            begun.end(start)
            self.go_on()

        self.engine.work(self.rank, segment.seconds, segment.contention, sent)

    def collective(self, segment: Segment, since: float | None) -> None:
        """Join it, and wait for its end or go on beside it."""
        call, now = segment.collective, self.engine.clock.now
        begun = self.begin(call)

        def all_have_come(meeting: Meeting) -> None:
            begun.work(lambda: self.share(segment, meeting))

        self.engine.meet(self.rank, "layers", call.axes, all_have_come, begun.end)
        if call.phase == "start":
            self.go_on(since)
        else:
            begun.wait(now, self.go_on)

    def begin(self, call: CollectiveCall) -> Begun:
        begun = Begun(at_wait=self.engine.cores is not None, record=partial(self.record, call))
        if call.phase == "start":
            self.rank.begun[call.axes, call.number] = begun
        return begun

    def share(self, segment: Segment, meeting: Meeting) -> None:
        """The rank's part of the work of a collective, of which it does one after the other."""

        def worked() -> None:
            self.rank.in_layers.release()
            self.engine.leave(meeting)

        def work() -> None:
            self.engine.work(self.rank, segment.seconds, segment.contention, worked)

        self.rank.in_layers.acquire(work)

    def record(self, call: CollectiveCall | None, start: float) -> None:
        """Kernels where `call` is None, or that collective, end now."""
        end = self.engine.clock.now
        self.engine.records.append((self.rank.number, COMPUTE, self.step, start, self.instruction, call, end))
