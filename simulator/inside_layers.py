"""How a simulation runs a compute instruction that shares: its core, or the collectives inside its layers."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from minidl.parallel.instructions import Instruction
from simulator.segments import Placed, Segment, place
from simulator.waiting import Meeting, PendingCollective, Stream

if TYPE_CHECKING:
    from simulator.engine import Engine, Rank


class InsideLayers:
    """The kernels and collectives of an instruction of `rank`, in turn; it keeps its stream until all are done."""

    def __init__(self, engine: Engine, rank: Rank, stream: Stream, instruction: Instruction):
        self.engine, self.rank, self.stream, self.instruction = engine, rank, stream, instruction
        self.segments = deque(engine.prices.segments(rank.number, instruction))
        self.found: list[Placed] = []
        engine.record(rank, instruction, 0.0, self.found)

    def go_on(self) -> None:
        """The next segment."""
        if not self.segments:
            self.engine.finish(self.rank, self.stream, self.instruction)
            return
        segment = self.segments.popleft()
        call = segment.collective
        if call is None:
            self.kernels(segment)
        elif call.phase == "wait":
            self.rank.pending.pop((call.axes, call.number)).wait(self.engine.clock.now, self.go_on)
        elif self.engine.prices.copied_at_once(call):
            self.send(segment)
        else:
            self.collective(segment)

    def kernels(self, segment: Segment) -> None:
        start = self.engine.clock.now

        def done() -> None:
            self.record(segment, start)
            self.go_on()

        self.engine.work(self.rank, segment.seconds, done, segment.contention)

    def send(self, segment: Segment) -> None:
        """On a core the sender copies at once, and waits for nobody."""
        pending, start = self.begin(segment), self.engine.clock.now

        def sent() -> None:
            pending.end(start)
            self.go_on()

        self.engine.work(self.rank, segment.seconds, sent)

    def collective(self, segment: Segment) -> None:
        """Join it, and wait for its end or go on beside it."""
        call, now = segment.collective, self.engine.clock.now
        pending = self.begin(segment)

        def all_have_come(meeting: Meeting) -> None:
            pending.work(lambda: self.share(segment, meeting))

        self.engine.meet(self.rank, "layers", call.axes, all_have_come, pending.end)
        if call.phase == "start":
            self.go_on()
        else:
            pending.wait(now, self.go_on)

    def begin(self, segment: Segment) -> PendingCollective:
        call = segment.collective
        pending = PendingCollective(at_wait=self.engine.cores is not None, record=partial(self.record, segment))
        if call.phase == "start":
            self.rank.pending[call.axes, call.number] = pending
        return pending

    def share(self, segment: Segment, meeting: Meeting) -> None:
        """The rank's part of the work of a collective, of which it does one after the other."""

        def worked() -> None:
            self.rank.in_layers.release()
            self.engine.leave(meeting)

        def work() -> None:
            self.engine.work(self.rank, segment.seconds, worked)

        self.rank.in_layers.acquire(work)

    def record(self, segment: Segment, start: float) -> None:
        """Kernels, or a collective, end now."""
        place(self.found, segment, start, self.engine.clock.now)
