"""Event and Trace: what happened when, measured or simulated, and the numbers read from it."""

from __future__ import annotations

import json
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, pairwise
from operator import sub
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from minidl import chrome, files, json_files
from minidl.display import Displayed, cut, facts
from minidl.events import COLLECTIVES, COMMUNICATION_LANES, COMPUTE, COPY, LANES, MESSAGES, Details, Event
from minidl.units import counted, duration

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "COLLECTIVES",
    "COMMUNICATION_LANES",
    "COMPUTE",
    "COPY",
    "LANES",
    "MESSAGES",
    "Details",
    "Event",
    "Trace",
    "idle_name",
]

SHOWN_RANKS = 8  # of more, those in the middle are left out where a trace is shown

Interval = tuple[float, float]


def idle_name(workers: int) -> str:
    """What the time of a step in which a worker does nothing is called: a single one has no bubbles."""
    return "bubble" if workers > 1 else "idle"


class Trace(Displayed):
    """All events of one run, which stay as they are. `kind` says whether they were "measured" or "simulated".

    workers: of the run, where these are events of some of them alone.
    """

    def __init__(self, events: Iterable[Event], kind: str = "measured", workers: int | None = None):
        self.events = sorted(events, key=lambda e: e.start)
        self.kind = kind
        ranks = len(self.ranks)
        self.workers = ranks if workers is None else workers
        if self.workers < ranks:
            raise ValueError(f"there are events of {ranks} ranks, and only {counted(self.workers, 'worker')}")

    @property
    def ranks(self) -> list[int]:
        return sorted(self._by_rank)

    @cached_property
    def _by_rank(self) -> dict[int, list[Event]]:
        return _grouped(self.events, "rank")

    def of_step(self, step: int) -> Trace:
        return Trace((e for e in self.events if e.step == step), self.kind, self.workers)

    def steps(self) -> list[Trace]:
        """The trace of each step, in order."""
        return [Trace(events, self.kind, self.workers) for _, events in sorted(_grouped(self.events, "step").items())]

    @cached_property
    def windows(self) -> list[Interval]:
        """From when to when each step is looked at, in order; windows do not overlap, though steps may.

        A single step is looked at whole, from its first event's start to its last one's end. Of several, the all-gather
        of one may run beside the forward of the next: a step ends when its compute lanes have ended on all ranks (its
        last event, if it computes nothing); it begins where the one before ended, or with its own first event where
        that is later. The first of several has no step before it, and is left out.
        """
        steps = [events for _, events in sorted(_grouped(self.events, "step").items())]
        if len(steps) == 1:
            return [(steps[0][0].start, max(e.end for e in steps[0]))]
        ends = accumulate(map(_end, steps), max)  # a file may hold steps that are not in order
        return [
            (max(before, events[0].start), end) for (before, end), events in zip(pairwise(ends), steps[1:], strict=True)
        ]

    @property
    def step_seconds(self) -> float:
        """The period: median length of the `windows` of the steps."""
        if not self.events:
            raise ValueError("the trace is empty: it has no steps to time")
        return statistics.median(self._lengths())

    def busy_fraction(self, rank: int) -> float:
        """Share of a step in which the compute lane of `rank` is busy: median over the steps."""
        return self.busy_fractions.get(rank, 0.0)

    @property
    def busy_fractions(self) -> dict[int, float]:
        """The `busy_fraction` of every rank, found in one pass over the events."""
        lengths = self._lengths()
        return {rank: _median(map(_share, seconds, lengths)) for rank, seconds in self._busy(COMPUTE).items()}

    @property
    def exposed_communication(self) -> float:
        """Seconds of a step in which a rank communicates and does not compute: mean of ranks, median of steps."""
        busy, compute = self._busy(COMPUTE, *COMMUNICATION_LANES), self._busy(COMPUTE)
        exposed = [map(sub, busy[rank], compute[rank]) for rank in busy]
        return max(0.0, _median(map(_mean, zip(*exposed, strict=True))))  # max: rounding

    @property
    def bubble_fraction(self) -> float:
        """Share of a step in which a rank neither computes nor communicates: mean of ranks, median of steps."""
        busy = map(_mean, zip(*self._busy(COMPUTE, *COMMUNICATION_LANES).values(), strict=True))
        return _median(_share(length - seconds, length) for seconds, length in zip(busy, self._lengths(), strict=True))

    @property
    def idle_name(self) -> str:
        """What the share that is `bubble_fraction` is called: one worker waits for no other, and has no bubbles."""
        return idle_name(self.workers)

    def _lengths(self) -> list[float]:
        return [end - start for start, end in self.windows]

    def _busy(self, *lanes: str) -> dict[int, list[float]]:
        """For each rank, the seconds of each window in which at least one of these lanes is busy."""
        return {rank: _covered(_merged(self._by_rank[rank], lanes), self.windows) for rank in self.ranks}

    def __repr__(self) -> str:
        ranks, steps = len(self.ranks), len(self.steps())
        what = f"{counted(steps, 'step')}, {duration(self.step_seconds)} each" if steps else "no events"
        return f"<Trace of {counted(ranks, 'rank')}, {self.kind}: {what}>"

    def __rich__(self) -> RenderableType:
        if not self.events:
            return facts(f"Trace, {self.kind}: no events", ())
        busy = list(self.busy_fractions.values())
        by_rank = ", ".join(cut([f"{share:.1%}" for share in busy], SHOWN_RANKS))
        return facts(f"Trace, {self.kind}", [
            ("ranks", f"{len(busy):,}" + (f" of {self.workers:,}" if len(busy) < self.workers else "")),
            ("steps", f"{len(self.steps()):,}, of {counted(len(self.events), 'event')}"),
            ("step time, median", duration(self.step_seconds)),
            ("busy", f"{_mean(busy):.1%} of a step" + (f"; by rank {by_rank}" if len(busy) > 1 else "")),
            *self.waiting(),
        ])  # fmt: skip

    def waiting(self) -> list[tuple[str, str]]:
        """Names and values, for people, of what ranks do in a step while they do not compute."""
        return [
            ("exposed communication", f"{duration(self.exposed_communication)} of a step"),
            (self.idle_name, f"{self.bubble_fraction:.1%} of a step"),
        ]

    def draw(self, path: str | PathLike, *others: Trace) -> None:
        """Write a picture of the last step, a .png or .svg file, below it that of others on the same axis of time.

        `measured.draw("step.png", simulated)` shows the two beside each other; `trace.of_step(3).draw(…)` that step. A
        row is a rank: what it computes and, below, its communication. ValueError for other endings.
        """
        from minidl.plots import draw_traces  # with matplotlib, for which only who draws waits

        draw_traces(path, (self, *others))

    def save(self, path: str | Path) -> None:
        """Write the trace in Chrome's format, which Perfetto opens: ranks, their lanes, and messages as arrows."""
        files.write(path, json.dumps(chrome.document(self.events, self.kind, self.workers)))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace that `save` wrote. ValueError, which names the file, for any other."""
        document = json_files.read_json(path)
        try:
            match document:
                case {"traceEvents": list(rows), "otherData": {"kind": str(kind), "workers": int(workers)}}:
                    return cls(chrome.events(rows), kind, workers)
            raise ValueError("there is no list traceEvents, or no otherData with the kind and the number of workers")
        except ValueError as error:
            raise ValueError(f"{path} is not a trace that minidl saved: {error}") from None


def _end(events: list[Event]) -> float:
    """When a step ends: the last event of its compute lanes, or the last of all if it computes nothing."""
    return max((e.end for e in events if e.lane == COMPUTE), default=max(e.end for e in events))


def _share(seconds: float, span: float) -> float:
    """`seconds` as a share of those of a step; 0 of a step that took no time."""
    return seconds / span if span else 0.0


def _grouped(events: list[Event], field: str) -> dict[int, list[Event]]:
    """The events by their `rank`, or their `step`."""
    groups: dict[int, list[Event]] = {}
    for event in events:
        groups.setdefault(getattr(event, field), []).append(event)
    return groups


def _merged(events: list[Event], lanes: tuple[str, ...]) -> list[Interval]:
    """When at least one of these lanes is busy, as disjoint intervals in order. Events come in the order of starts."""
    merged: list[Interval] = []
    for _, lane, _, start, end, *_ in events:
        if lane in lanes:
            if merged and start <= merged[-1][1]:
                start, before = merged.pop()
                end = max(end, before)
            merged.append((start, end))
    return merged


def _covered(intervals: list[Interval], windows: list[Interval]) -> list[float]:
    """The seconds of each window that lie in one of the intervals, which are disjoint and in order."""
    starts, ends = [start for start, _ in intervals], [end for _, end in intervals]
    return [
        sum(min(b, end) - max(a, start) for a, b in intervals[bisect_right(ends, start) : bisect_left(starts, end)])
        for start, end in windows
    ]


def _median(values: Iterable[float]) -> float:
    values = list(values)
    return statistics.median(values) if values else 0.0


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
