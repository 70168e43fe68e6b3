"""How long the GPU takes for something, apart from a moment in which it waits for the host."""

import time
from collections.abc import Callable

from minidl import kernels

HOST_SECONDS, LEAST, MOST = 1e-2, 3, 20  # after which no more runs are launched; how many there are


def mean_seconds(action: Callable[[], object], warm_up: int = 2) -> float:
    """Mean time of an action that is repeated without a pause, between one event before all runs and one after them.

    Those of small arrays take as long as the host needs to launch them. warm_up: runs before that do not count. The
    first compiles; as long as there are more results than ever before, their memory is asked of the driver, which is
    slow.
    """
    k = kernels.for_device("cuda")
    for _ in range(warm_up):
        action()
    runs, until = 0, time.perf_counter() + HOST_SECONDS
    start = k.Event(k.compute)
    while runs < LEAST or (runs < MOST and time.perf_counter() < until):
        action()
        runs += 1
    end = k.Event(k.compute)
    end.synchronize()
    return max(end.seconds_since(start), 1e-9) / runs
