"""A compute instruction in segments: stretches of kernels, and the collectives of layers among them; when each runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from minidl.parallel.handle import CollectiveCall


class Segment(NamedTuple):
    """A stretch of a compute instruction: kernels, or one collective inside a layer, or where that is waited for.

    contention: by what factor it is slower while all cores of a shared machine are busy. goes_on: of kernels, whether
    they follow those before without a pause: what lies between is a collective that is only started.
    """

    seconds: float
    contention: float
    collective: CollectiveCall | None
    goes_on: bool = False


class Placed(NamedTuple):
    """From when until when something runs: kernels, or a collective on a lane of its own."""

    start: float
    end: float
    collective: CollectiveCall | None


def place(found: list[Placed], segment: Segment, start: float, end: float) -> None:
    """Add a segment that has run; kernels that go on from others are one with them."""
    if segment.goes_on:
        before = len(found) - 1
        while found[before].collective is not None:
            before -= 1
        start = found.pop(before).start
    found.append(Placed(start, end, segment.collective))


def placed(segments: Sequence[Segment], start: float = 0.0) -> tuple[list[Placed], float]:
    """The segments of an instruction where a device has a lane for collectives beside that for kernels, and its end.

    Times are from when all ranks with which its layers communicate have begun. start: of this one, if it is not the
    last of them, below zero. What is started and not waited for may go on after the end.
    """
    of_last = iter([one for one in placed(segments)[0] if one.collective]) if start else None
    found: list[Placed] = []
    now, free = start, 0.0  # of the kernels; of the collectives
    ends: dict[tuple, float] = {}
    for segment in segments:
        call = segment.collective
        if call is None:
            place(found, segment, now, now := now + segment.seconds)
        elif call.phase == "wait":
            now = max(now, ends.pop((call.axes, call.number)))
        else:
            begin = next(of_last).start if of_last else max(now, free)
            place(found, segment, begin, free := begin + segment.seconds)
            if call.phase == "start":
                ends[call.axes, call.number] = free
            else:
                now = max(now, free)
    return found, now


def apart(segments: Sequence[Segment]) -> tuple[float, float]:
    """How long an instruction takes from its start if it waits for nobody, and from when all have begun that it meets.

    It ends when both have passed.
    """
    kernels = sum(segment.seconds for segment in segments if segment.collective is None)
    return kernels, placed(segments, -inf)[1]
