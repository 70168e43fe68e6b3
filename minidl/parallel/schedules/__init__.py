"""Schedules: the order in which a stage runs the forwards and backwards of its micro-batches, a file for each family.

All else (loading, sending, reducing, updating) is the same for every schedule, and is added once, in assembly.py.
"""

from minidl.parallel.schedules.gpipe import gpipe, naive
from minidl.parallel.schedules.interleaved import interleaved
from minidl.parallel.schedules.one_forward_one_backward import one_forward_one_backward
from minidl.parallel.schedules.order import BACKWARD, FORWARD, INPUT, WEIGHTS, OrderOfStage, Pass, Schedule
from minidl.parallel.schedules.zero_bubble import zero_bubble

SCHEDULES: dict[str, Schedule] = {
    "naive": Schedule(naive),
    "gpipe": Schedule(gpipe),
    "1f1b": Schedule(one_forward_one_backward, one_chunk=True),
    "interleaved": Schedule(interleaved, several_chunks=True, whole_rounds=True),
    "zero-bubble": Schedule(zero_bubble, one_chunk=True),
}


def schedule_of(given: str | OrderOfStage) -> Schedule:
    """The schedule of a name in `SCHEDULES`, or one that runs in an order of the user's, whatever the sizes."""
    return Schedule(given) if callable(given) else SCHEDULES[given]
