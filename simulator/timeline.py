"""When everything of a program ends where each lane of a rank runs for itself: longest paths through its structure.

Nothing waits for anything but what the structure says, so no clock has to be asked what comes first: as each node is
later than those that it waits for, one pass in their order finds all. Where ranks share cores, or meet inside layers
in several ways, that is not so (engine.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import ulp

from minidl.parallel.dependencies import Graph, Node
from minidl.parallel.instructions import Instruction
from minidl.parallel.structure import Structure
from minidl.trace import COLLECTIVES, COMPUTE, Event, Trace
from minidl.validation import check_count
from simulator.prices import Prices
from simulator.segments import Placed, apart, placed
from simulator.step_times import StepTimes


class Timeline(StepTimes):
    """Some steps of a program, one after the other without a pause, at `prices`, on the ranks of its `structure`.

    steps: how many.
    """

    def __init__(self, structure: Structure, prices: Prices, steps: int = 2):
        check_count("steps", steps)
        self.structure, self.prices, self.steps = structure, prices, steps
        self.runs: dict[str, _Run] = {}
        now = 0.0
        seconds = {part: self._seconds_of(graph.works) for part, graph in structure.parts.items()}
        most = sum(steps * len(structure.parts[part]) * max(own, default=0.0) for part, own in seconds.items())
        tick = ulp(most) if most else 1.0  # of which all times are whole multiples, so that sums of them are exact
        for part, graph in structure.parts.items():
            ticks = [round(one / tick) * tick for one in seconds[part]]
            self.runs[part] = run = _Run(graph, ticks, steps if part == "step" else 1, now)
            now = max(run.condensed, default=now)
        self.prologue_seconds = max(self.runs["prologue"].condensed, default=0.0)

    def _seconds(self, node: Node) -> float:
        """From when all that a node waits for has ended until it ends."""
        if not node.members:
            return 0.0
        prices, ranks = self.prices, self.structure.ranks
        (number, i), *_ = node.members
        rank = ranks[number]
        if i.kind == "send":
            return prices.send(rank, ranks[i.to], i)
        if i.kind == "receive":
            return prices.receive(ranks[i.source], rank, i)
        if i.kind == "collective":
            return max(prices.collective(ranks[number], i) for number, i in node.members)
        if not node.inside:
            return prices.placed(rank, i)[1]
        kernels, after_all_began = apart(prices.segments(rank, i))
        return kernels if node.ends else after_all_began - kernels

    def _seconds_of(self, nodes: Sequence[Node]) -> list[float]:
        """The same of each of them, asked once for those that are alike."""
        found: list[float] = []
        for n, first in enumerate(self.prices.alike(nodes)):
            found.append(self._seconds(nodes[n]) if first == n else found[first])
        return found

    @cached_property
    def step_ends(self) -> list[float]:
        run = self.runs["step"]
        if self.steps == 1:
            return [max(run.condensed, default=0.0)]
        graph, ends = run.graph.condensed, run.condensed
        starts = (step * len(graph) for step in range(1, self.steps + 1))
        return [max((ends[start + n] for n in graph.last_computing.values()), default=0.0) for start in starts]

    def busy_and_exposed(self) -> tuple[float, float]:
        """Seconds of the last step in which a rank computes, and in which it communicates and does not: means.

        The step is looked at from where the last compute lane has ended the one before.
        """
        run, end = self.runs["step"], self.step_ends[-1]
        begin = max([self.prologue_seconds, *self.step_ends][-2], min(map(run.start, run.last_step)))
        whole = [self._kernels(node) for node in run.graph.works]
        busy = dict.fromkeys(self.structure.ranks, 0.0)
        spans: dict[int, list[tuple[float, float]]] = {rank: [] for rank in busy}
        for here in range(run.size, len(run.ends)):
            node = run.node(here)
            kernels, outlasts = whole[run.graph.work[here % run.size]]
            if run.ends[here] <= begin and not outlasts or not (node.members and node.ends):
                continue
            for rank, i in node.members:
                if kernels is not None and not outlasts and (since := run.start(here)) >= begin:
                    busy[rank] += kernels  # all the time between is taken up by collectives inside
                    spans[rank].append((since, run.ends[here]))
                    continue
                for start, stop, call in self._pieces(run, here, rank, i):
                    start, stop = max(start, begin), min(stop, end)
                    if start < stop:
                        spans[rank].append((start, stop))
                        busy[rank] += stop - start if i.lane == COMPUTE and call is None else 0.0
        counts = self.structure.counts
        computes = sum(count * busy[rank] for rank, count in counts.items())
        covered = sum(count * _covered(spans[rank]) for rank, count in counts.items())
        return computes / sum(counts.values()), (covered - computes) / sum(counts.values())

    def _kernels(self, node: Node) -> tuple[float | None, bool]:
        """The seconds of kernels, None where others are waited for; whether a collective goes on after the end."""
        if not (node.members and node.ends) or node.inside or not node.computes:
            return None, node.inside
        (number, i), *_ = node.members
        found, end = self.prices.placed(self.structure.ranks[number], i)
        return sum(b - a for a, b, call in found if call is None), any(one.end > end for one in found)

    def trace(self) -> Trace:
        """What happened in all steps, with the collectives inside layers as events of the collectives lane."""
        return Trace(self._events(), "simulated", self.prices.plan.workers)

    def _events(self) -> Iterator[Event]:
        for run in self.runs.values():
            for here in range(run.size, len(run.ends)):
                node, step = run.node(here), here // run.size - 1
                for number, i in node.members if node.ends else ():
                    rank = self.structure.ranks[number]
                    for start, end, call in self._pieces(run, here, number, i):
                        lane, name = (COLLECTIVES, call.name) if call else (i.lane, i.name)
                        yield Event(rank, lane, name, start, end, step, self.prices.details(rank, i, call))

    def _pieces(self, run: _Run, here: int, number: int, i: Instruction) -> list[Placed]:
        """What of an instruction runs when."""
        node, rank = run.node(here), self.structure.ranks[number]
        if i.kind != "compute":
            start = run.start(here)
            if i.kind == "receive":  # the lane is busy as long as the sender's
                start = max(run.ends[run.first(here)], run.start(run.second(here)))
            return [Placed(start, run.ends[here], None)]
        begun, late = run.start(here), 0.0
        if node.inside:  # since all whom it meets have begun; itself it may have been earlier
            begun = run.start(run.second(here))
            late = begun - run.ends[run.first(here)]
        segments = self.prices.segments(rank, i)
        found, _ = placed(segments, -late) if late > 0 else self.prices.placed(rank, i)
        return [Placed(begun + start, begun + end, call) for start, end, call in found]


class _Run:
    """A part, so many times over, that begins at `start`. seconds: of the works of its graph.

    condensed: when the nodes of its condensed graph end, in a step before the first and in all.
    """

    def __init__(self, graph: Graph, seconds: list[float], steps: int, start: float):
        self.graph, self.size, self._seconds, self._steps, self._start = graph, len(graph), seconds, steps, start
        self.condensed = graph.condensed_ends([seconds[number] for number in graph.condensed.work], steps, start)

    @cached_property
    def ends(self) -> list[float]:
        """The same of all its nodes."""
        if self.graph.condensed is self.graph:
            return self.condensed
        return self.graph.ends([self._seconds[number] for number in self.graph.work], self._steps, self._start)

    def node(self, here: int) -> Node:
        return self.graph.nodes[here % self.size]

    def start(self, here: int) -> float:
        """When all has ended that a node waits for."""
        if here < self.size:
            return self.ends[here]
        return max(self.ends[self.first(here)], self.ends[self.second(here)])

    def first(self, here: int) -> int:
        return here + self.graph.first[here % self.size]

    def second(self, here: int) -> int:
        return here + self.graph.second[here % self.size]

    @property
    def last_step(self) -> range:
        return range(len(self.ends) - self.size, len(self.ends))


def _covered(spans: list[tuple[float, float]]) -> float:
    """The seconds in one of these spans at least."""
    seconds, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > until:
            seconds += end - max(start, until)
            until = end
    return seconds
