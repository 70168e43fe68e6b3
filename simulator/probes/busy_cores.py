"""All cores at once: how much they slow one another down, what ranks on one core lose, how fast the machine is now."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from minidl.parallel.group import ProcessGroup
from simulator.probes.timing import Clock, median_seconds

CONTENTION_BYTES = (1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
CHUNK_SECONDS = 1e-2
PROBE_SECONDS = 4e-2
MORE_COLLECTIVES = 12  # in the second kind of iteration_seconds


def contention(group: ProcessGroup, rounds: int) -> list[list[float]]:
    """How many times longer this rank's work takes while all ranks do theirs, than alone: by kind of work.

    The kinds are adding arrays of CONTENTION_BYTES (all three together), and last matrix products; each takes about
    CHUNK_SECONDS, as ranks compute for some milliseconds before they wait for one another. A list for each round in
    which this rank was the one to work alone. Alone and together follow one another, so that a slow moment of the
    machine falls on both; the clock is that of the thread.
    """
    ratios: list[list[float]] = []
    calls = group.empty((1,))
    for turn in range(rounds):
        mine, found = group.rank == turn % group.size, []
        for action in _contended():
            calls.data[0] = CHUNK_SECONDS / median_seconds(action)
            group.all_reduce(calls)
            times = math.ceil(calls.data[0] / group.size)
            alone, together = (_own_seconds(group, action, times * working) for working in (mine, True))
            if mine:
                found.append(together / alone)
        if mine:
            ratios.append(found)
    return ratios


def _contended() -> Iterator[Callable[[], object]]:
    for nbytes in CONTENTION_BYTES:
        a, b, out = (np.ones(nbytes // 12, np.float32) for _ in range(3))
        yield lambda a=a, b=b, out=out: np.add(a, b, out=out)
    a, b = np.ones((128, 512), np.float32), np.ones((512, 512), np.float32)
    yield lambda: a @ b


def _own_seconds(group: ProcessGroup, action: Callable[[], object], times: int) -> float:
    """For which this thread runs to do `action` so often, begun with the other ranks."""
    group.barrier()
    start = time.thread_time()
    for _ in range(times):
        action()
    seconds = time.thread_time() - start
    group.barrier()
    return seconds


def iteration_seconds(group: ProcessGroup, rounds: int) -> tuple[float, float]:
    """Median time of an iteration, and of one with MORE_COLLECTIVES all-reduces of a number in between.

    An iteration computes products on 12 MiB and ends in an all-reduce of a third of it.
    """
    weights, velocities = (np.zeros((4, 512, 512), np.float32) for _ in range(2))
    gradients, number = group.empty((4, 512, 512)).data, group.empty((1,)).data
    x = np.zeros((64, 512), np.float32)

    def iterate(between: Callable[[], object]):
        for weight, gradient in zip(weights, gradients, strict=True):
            for _ in range(2):
                np.matmul(x, weight)
                between()
            np.matmul(x.T, x, out=gradient)
            between()
        group.all_reduce(gradients)
        np.add(velocities, gradients, out=velocities)

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for seconds, between in zip(times, (lambda: None, lambda: group.all_reduce(number)), strict=True):
            start = time.perf_counter()
            iterate(between)
            seconds.append(time.perf_counter() - start)
    few, more = (statistics.median(seconds) for seconds in times)
    return few, more


def speed_probe(group: ProcessGroup, now: Clock = time.perf_counter) -> tuple[float, float]:
    """How fast this machine is now: seconds of a fixed mix of arithmetic and memory traffic.

    By rank 0 alone (0 on the others), and by all ranks at once. now: see `median_seconds`.
    """
    a, b = np.ones((256, 1024), np.float32), np.ones((1024, 1024), np.float32)
    x = np.ones(1 << 20, np.float32)

    def mix():
        a @ b
        np.add(x, x, out=x[:])

    group.barrier()
    alone = median_seconds(mix, PROBE_SECONDS, 10**6, now) if group.rank == 0 else 0.0
    group.barrier()
    return alone, median_seconds(mix, PROBE_SECONDS, 10**6, now)


def contention_and_speed(
    group: ProcessGroup, rounds: int
) -> tuple[list[list[float]], tuple[float, float], tuple[float, float]]:
    """In one launch `contention`, and `speed_probe` by the clock on the wall and by that of the threads."""
    return contention(group, rounds), speed_probe(group), speed_probe(group, time.thread_time)
