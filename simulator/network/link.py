"""A link: what a message or a part of a collective takes on it, by its latency, its bandwidth and its ramp."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.units import duration, scaled


@dataclass(frozen=True)
class Link:
    """The alpha-beta model (Hockney 1994), and what NCCL's collectives take beyond it.

    latency: alpha, seconds of each step. bandwidth: 1/beta, bytes per second and direction that large collectives
    reach. start: seconds of a pass of a collective before its first step. ramp: more
    seconds of a pass for each square root of a byte: the middle sizes, cut into fewer pieces than a ring needs. floor,
    floor_latency: the least that a pass takes, and each of its steps, of whatever few bytes.

    A reduction or a gathering is one pass, an all-reduce two.
    """

    latency: float
    bandwidth: float
    start: float = 0.0
    ramp: float = 0.0
    floor: float = 0.0
    floor_latency: float = 0.0

    def __str__(self) -> str:
        return f"{scaled(self.bandwidth, 'B/s')}, {duration(self.latency)}"
