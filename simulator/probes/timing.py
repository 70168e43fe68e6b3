"""How long an action takes, on a machine that others use as well."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

LEAST_SECONDS = 1e-9  # of a call, for one that ends before a clock can tell
Clock = Callable[[], float]


def median_seconds(
    action: Callable[[], object], seconds: float = 3e-3, most: int = 30, now: Clock = time.perf_counter
) -> float:
    """Median time of `action` over as many runs as fit in `seconds`, at least three, after one that does not count.

    now: the clock; `time.thread_time` leaves out what other programs do on the core meanwhile.
    """
    action()
    times: list[float] = []
    reading = reading_seconds(now)
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < most):
        start = now()
        action()
        times.append(max(now() - start - reading, LEAST_SECONDS))
    return statistics.median(times)


def undisturbed(times: Sequence[float]) -> float:
    """The lower quartile: other programs can only make it slower."""
    return sorted(times)[len(times) // 4]


def reading_seconds(now: Clock) -> float:
    """What reading a clock twice adds to the time between."""
    readings = [now() for _ in range(20)]
    return min(after - before for before, after in itertools.pairwise(readings))
