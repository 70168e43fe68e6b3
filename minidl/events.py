"""Event: what a lane of a rank did, from when to when, and to what."""

from __future__ import annotations

from typing import NamedTuple

COMPUTE, COLLECTIVES, MESSAGES, COPY = "compute", "collectives", "messages", "copy"
LANES = (COMPUTE, COLLECTIVES, MESSAGES, COPY)
COMMUNICATION_LANES = (COLLECTIVES, MESSAGES)


class Details(NamedTuple):
    """What an event was about; None where that is not one certain thing.

    blocks: the first and the last one of the chain whose parameters or gradients are touched. nbytes: what a message or
    a collective moves. to, source: the rank that a message goes to, or comes from. message: what that has.
    """

    stage: int | None = None
    chunk: int | None = None
    blocks: tuple[int, int] | None = None
    micro_batch: int | None = None
    nbytes: int | None = None
    to: int | None = None
    source: int | None = None
    message: str | None = None


class Event(NamedTuple):
    """Something a lane of a rank did from `start` to `end`, in seconds, in a step of the run.

    details: None where nobody has told them, as in files of earlier days.
    """

    rank: int
    lane: str
    name: str
    start: float
    end: float
    step: int = 0
    details: Details | None = None
