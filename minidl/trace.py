"""Event and Trace: what happened when, measured or simulated, and the numbers read from it."""

from __future__ import annotations

import json
import reprlib
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minidl import files, json_files

COMPUTE, COMMUNICATION = "compute", "communication"
LANES = (COMPUTE, COMMUNICATION, "copy")

Interval = tuple[float, float]


class Event(NamedTuple):
    """Something a lane of a rank did from `start` to `end`, in seconds, in a step of the run."""

    rank: int
    lane: str
    name: str
    start: float
    end: float
    step: int = 0


class Trace:
    """All events of one run. `kind` says whether they were "measured" or "simulated"."""

    def __init__(self, events: Iterable[Event], kind: str = "measured"):
        self.events = sorted(events, key=lambda e: e.start)
        self.kind = kind

    @property
    def ranks(self) -> list[int]:
        return sorted({e.rank for e in self.events})

    def of_step(self, step: int) -> Trace:
        return Trace((e for e in self.events if e.step == step), self.kind)

    def steps(self) -> list[Trace]:
        """The trace of each step, in order."""
        by_step: dict[int, list[Event]] = {}
        for event in self.events:
            by_step.setdefault(event.step, []).append(event)
        return [Trace(events, self.kind) for _, events in sorted(by_step.items())]

    @property
    def step_seconds(self) -> float:
        """Median over the steps of the time from the first event's start to the last one's end, on any rank."""
        if not self.events:
            raise ValueError("the trace is empty: it has no steps to time")
        return statistics.median(_span(step.events) for step in self.steps())

    def busy_fraction(self, rank: int) -> float:
        """Share of a step in which the compute lane of `rank` is busy: median over the steps."""
        return _median(_share(_length(_merged(step._intervals(rank, COMPUTE))), step) for step in self.steps())

    @property
    def exposed_communication(self) -> float:
        """Seconds of a step in which a rank communicates and does not compute: mean of ranks, median of steps."""
        return _median(_mean(step._exposed(rank) for rank in self.ranks) for step in self.steps())

    @property
    def bubble_fraction(self) -> float:
        """Share of a step in which a rank neither computes nor communicates: mean of ranks, median of steps."""
        return _median(_mean(step._idle(rank) for rank in self.ranks) for step in self.steps())

    def _intervals(self, rank: int, *lanes: str) -> list[Interval]:
        return [(e.start, e.end) for e in self.events if e.rank == rank and e.lane in lanes]

    def _idle(self, rank: int) -> float:
        return _share(_span(self.events) - _length(_merged(self._intervals(rank, COMPUTE, COMMUNICATION))), self)

    def _exposed(self, rank: int) -> float:
        both = _length(_merged(self._intervals(rank, COMPUTE, COMMUNICATION)))
        return both - _length(_merged(self._intervals(rank, COMPUTE)))

    def save(self, path: str | Path) -> None:
        """Write the trace in Chrome's format, which Perfetto opens: a process for each rank, a thread for each lane."""
        zero = min((e.start for e in self.events), default=0.0)
        rows: list[dict] = []
        for rank in self.ranks:
            rows.append({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}})
            for thread, lane in enumerate(LANES):
                rows.append({"ph": "M", "name": "thread_name", "pid": rank, "tid": thread, "args": {"name": lane}})
        for e in self.events:
            rows.append({
                "ph": "X", "name": e.name, "cat": self.kind, "pid": e.rank, "tid": LANES.index(e.lane),
                "ts": (e.start - zero) * 1e6, "dur": (e.end - e.start) * 1e6, "args": {"step": e.step},
            })  # fmt: skip
        document = {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"kind": self.kind}}
        files.write(path, json.dumps(document))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace that `save` wrote. ValueError, which names the file, for any other."""
        document = json_files.read_json(path)
        try:
            match document:
                case {"traceEvents": list(rows), "otherData": {"kind": str(kind)}}:
                    lanes = _lanes(rows)
                    return cls([_event(row, lanes) for row in rows if not _is_description(row)], kind)
            raise ValueError("there is no list traceEvents, or no otherData with the kind")
        except ValueError as error:
            raise ValueError(f"{path} is not a trace that minidl saved: {error}") from None


def _is_description(row: object) -> bool:
    return isinstance(row, dict) and row.get("ph") == "M"


def _lanes(rows: list) -> dict[tuple[int, int], str]:
    """The name of each lane by rank and thread."""
    lanes = {}
    for row in rows:
        match row:
            case {"ph": "M", "name": "thread_name", "pid": int(rank), "tid": int(thread), "args": {"name": str(lane)}}:
                lanes[rank, thread] = lane
    return lanes


def _event(row: object, lanes: dict[tuple[int, int], str]) -> Event:
    """An event from a row of a file. ValueError if it is none."""
    match row:
        case {"ph": "X", "pid": rank, "tid": int(thread), "name": str(name), "ts": start, "dur": length,
              "args": {"step": step}}:  # fmt: skip
            pass
        case _:
            raise ValueError(f"{reprlib.repr(row)} is no event of a rank")
    if not all(type(number) is int and number >= 0 for number in (rank, step)):
        raise ValueError(f"rank {reprlib.repr(rank)}, step {reprlib.repr(step)}: they must be whole numbers from 0 on")
    if lanes.get((rank, thread)) not in LANES:
        lane = reprlib.repr(lanes.get((rank, thread)))
        raise ValueError(f"thread {thread} of rank {rank} is the lane {lane}, and none of {', '.join(LANES)}")
    if not (_is_time(start) and _is_time(length) and _is_time(start + length)):
        raise ValueError(
            f"{reprlib.repr(name)} begins at {reprlib.repr(start)} and takes {reprlib.repr(length)} microseconds: "
            "they must be finite, and not below 0"
        )
    return Event(rank, lanes[rank, thread], name, start / 1e6, (start + length) / 1e6, step)


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def _span(events: list[Event]) -> float:
    return max(e.end for e in events) - events[0].start


def _share(seconds: float, step: Trace) -> float:
    """`seconds` as a share of the step; 0 of a step that took no time."""
    span = _span(step.events)
    return seconds / span if span else 0.0


def _merged(intervals: list[Interval]) -> list[Interval]:
    """The union of intervals, as disjoint ones."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length(intervals: list[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def _median(values: Iterable[float]) -> float:
    values = list(values)
    return statistics.median(values) if values else 0.0


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
