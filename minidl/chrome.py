"""Chrome's format of traces, which Perfetto opens: ranks as processes, lanes as threads, messages as arrows.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU describes it.
"""

from __future__ import annotations

import reprlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

from minidl.events import COLLECTIVES, COPY, LANES, Details, Event

FORMER_LANES = {"communication": COLLECTIVES}  # in files written when messages had no lane of their own
DESCRIPTION, SLICE, ARROW_START, ARROW_END = "M", "X", "s", "f"  # phases: what a row is


def document(events: Sequence[Event], kind: str, workers: int) -> dict:
    """The whole file, for JSON. Times are microseconds since the first event."""
    zero = min((e.start for e in events), default=0.0)
    threads = [*_threads(events)]
    beside = {e.rank: 0 for e in events}
    for e, thread in zip(events, threads, strict=True):
        beside[e.rank] = max(beside[e.rank], thread + 1 - len(LANES))
    rows: list[dict] = []
    for rank in sorted({e.rank for e in events}):
        rows.append({"ph": DESCRIPTION, "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}})
        for thread, lane in enumerate((*LANES, *[COPY] * beside[rank])):
            rows.append({"ph": DESCRIPTION, "name": "thread_name", "pid": rank, "tid": thread, "args": {"name": lane}})
    for number, (send, receive) in enumerate(messages(events)):
        # An arrow is tied to the slices in which its ends lie; "e" says that of the one at its head.
        arrow = {"cat": "message", "name": send.details.message, "id": number}
        rows.append(arrow | {"ph": ARROW_START} | _at(send, 0.0, zero))
        rows.append(arrow | {"ph": ARROW_END, "bp": "e"} | _at(receive, 0.99, zero))  # still in it
    for e, thread in zip(events, threads, strict=True):
        told = {name: value for name, value in (e.details or Details())._asdict().items() if value is not None}
        rows.append({
            "ph": SLICE, "name": e.name, "cat": kind, "pid": e.rank, "tid": thread,
            "ts": (e.start - zero) * 1e6, "dur": (e.end - e.start) * 1e6, "args": {"step": e.step, **told},
        })  # fmt: skip
    return {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"kind": kind, "workers": workers}}


def _threads(events: Sequence[Event]) -> Iterator[int]:
    """The thread of each event: that of its lane. Slices of one thread must not overlap, as copies may.

    The host brings the next data into the device's format while those before are still on their way: such a copy gets
    a thread of its own beyond those of the lanes. events: in the order of their starts.
    """
    ends: defaultdict[int, list[float]] = defaultdict(list)  # of what is on each thread of copies of a rank
    for e in events:
        if e.lane != COPY:
            yield LANES.index(e.lane)
            continue
        on = ends[e.rank]
        free = next((n for n, end in enumerate(on) if end <= e.start), len(on))
        on[free : free + 1] = [e.end]
        yield LANES.index(COPY) + free


def messages(events: Sequence[Event]) -> Iterator[tuple[Event, Event]]:
    """Each send with its receive: those of a step from one rank to another arrive in the order in which they are sent.

    One whose peer is not among the events is left out. events: in the order of their starts.
    """
    sends: defaultdict[tuple, list[Event]] = defaultdict(list)
    receives: defaultdict[tuple, list[Event]] = defaultdict(list)
    for e in events:
        if e.details is not None and e.details.to is not None:
            sends[e.step, e.rank, e.details.to, e.details.message].append(e)
        elif e.details is not None and e.details.source is not None:
            receives[e.step, e.details.source, e.rank, e.details.message].append(e)
    for channel, sent in sends.items():
        yield from zip(sent, receives[channel], strict=False)


def _at(e: Event, share: float, zero: float) -> dict:
    """Where an arrow begins or ends: on the event's lane, when that share of it is over."""
    time = e.start + share * (e.end - e.start)
    return {"pid": e.rank, "tid": LANES.index(e.lane), "ts": (time - zero) * 1e6}


def events(rows: list) -> list[Event]:
    """The events of a file's rows. ValueError if one is none."""
    lanes = _lanes(rows)
    return [_event(row, lanes) for row in rows if not _is_beside(row)]


def _is_beside(row: object) -> bool:
    return isinstance(row, dict) and row.get("ph") in (DESCRIPTION, ARROW_START, ARROW_END)


def _lanes(rows: list) -> dict[tuple[int, int], str]:
    """The name of each lane by rank and thread."""
    lanes = {}
    for row in rows:
        match row:
            case {"ph": "M", "name": "thread_name", "pid": int(rank), "tid": int(thread), "args": {"name": str(lane)}}:
                lanes[rank, thread] = FORMER_LANES.get(lane, lane)
    return lanes


def _event(row: object, lanes: dict[tuple[int, int], str]) -> Event:
    """An event from a row of a file. ValueError if it is none."""
    match row:
        case {"ph": "X", "pid": rank, "tid": int(thread), "name": str(name), "ts": start, "dur": length,
              "args": {"step": step, **told}}:  # fmt: skip
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
    return Event(rank, lanes[rank, thread], name, start / 1e6, (start + length) / 1e6, step, _details(name, told))


def _details(name: str, told: dict) -> Details | None:
    """What a file tells of an event beside its step. ValueError if that is not what `document` writes."""
    for what, value in told.items():
        match what, value:
            case ("message", str()):
                pass
            case ("blocks", [int(first), int(last)]) if 0 <= first <= last:
                told = told | {"blocks": (first, last)}
            case ("stage" | "chunk" | "micro_batch" | "nbytes" | "to" | "source", int(number)) if number >= 0:
                pass
            case _:
                raise ValueError(f"{reprlib.repr(name)} has {reprlib.repr(what)}: {reprlib.repr(value)}")
    return Details(**told) if told else None


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max
