"""What calibration runs in worker processes: micro-benchmarks of matrix products, busy cores, collectives and messages.

Nothing here trains in parallel. How long the other kernels take is found in kernel_probes.py.
"""

from __future__ import annotations

import itertools
import math
import operator
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor
from simulator.compute.measured import SMALL

GEMM_POOL, GEMM_PLACES = 16 << 20, 16  # bytes, more than the caches of a core; places in it
MESSAGE_BYTES = (64, 1 << 12, 1 << 15, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
CONTENTION_BYTES = (1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
CHUNK_SECONDS = 1e-2
PROBE_SECONDS = 4e-2
MORE_COLLECTIVES = 12  # in the second kind of iteration_seconds
LEAST_SECONDS = 1e-9  # of a call, for one that ends before a clock can tell
Clock = Callable[[], float]
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")  # of instructions
IN_LAYERS = (*COLLECTIVES, "reduce", "all_to_all")
SIDES = ("send", "recv")  # of a message


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


# One worker


def gemm_seconds(sizes: Sequence[int]) -> list[float]:
    """Times of (m, k) @ (n, k)^T in float32 for all of the sizes, m slowest and k fastest.

    As in training, no product finds its operands where the one before left its own: in a core's nearest caches.
    """
    pool = np.ones(GEMM_POOL // 4, np.float32)
    return [_product_seconds(pool, m, n, k) for m, n, k in product(sizes, repeat=3)]


def _product_seconds(pool: np.ndarray, m: int, n: int, k: int) -> float:
    """Of one product, whose operands are taken from one place of the pool after another; small ones from the first."""
    size = (m + n) * k
    places = min(GEMM_PLACES, pool.size // size) if 4 * size > SMALL else 1
    parts = [pool[i * size : (i + 1) * size] for i in range(places)]
    operands = itertools.cycle([(part[: m * k].reshape(m, k), part[m * k :].reshape(n, k).T) for part in parts])
    results: deque[np.ndarray] = deque(maxlen=places)
    return median_seconds(lambda: results.append(operator.matmul(*next(operands))), 1.5e-3, now=time.thread_time)


# All cores at once


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


# Two workers: collectives and messages


def communication(group: ProcessGroup) -> dict[str, list[tuple[float, float]]]:
    """(bytes, seconds) of each of COLLECTIVES, of IN_LAYERS and SIDES, "layers: " before their names, and of "send".

    That is, on the two ranks, the one and the other side of a message; inside layers they exchange messages.
    """
    times: dict[str, list[tuple[float, float]]] = {}
    for nbytes in MESSAGE_BYTES:
        runs = 100 if nbytes < 1 << 18 else 20 if nbytes < 1 << 22 else 6
        for name in COLLECTIVES:
            whole = group.empty((group.size, nbytes // 4 // group.size))
            whole.data[...] = 0
            action = _in_place(group, name, whole)
            times.setdefault(name, []).append((nbytes, _timed(runs, group, action)))
        for name in IN_LAYERS:
            action = _in_layer(group, name, np.zeros((group.size, nbytes // 4 // group.size), np.float32))
            times.setdefault(f"layers: {name}", []).append((nbytes, _timed(runs, group, action)))
        message = np.zeros(nbytes // 4, np.float32)
        for name, seconds in zip(SIDES, _exchange(runs, group, message), strict=True):
            times.setdefault(f"layers: {name}", []).append((nbytes, seconds))
        if group.rank == 0:
            action = lambda m=message: group.send(m, 1, async_op=True).wait()  # noqa: E731
        else:
            action = lambda: group.recv(src=0, async_op=True).wait()  # noqa: E731
        times.setdefault("send", []).append((nbytes, _timed(runs, group, action, wait=group.rank == 1)))
    return times


def _in_place(group: ProcessGroup, name: str, whole: Tensor) -> Callable[[], object]:
    """Calls the collective as a worker does, on `whole`; its row `rank` is this rank's part of the result or input."""
    x, part = whole.data, whole.data[group.rank : group.rank + 1]
    collective = getattr(group, name)
    if name == "all_gather":
        return lambda: collective(part, out=x, async_op=True).wait()
    if name == "reduce_scatter":
        return lambda: collective(x, out=part, async_op=True).wait()
    return lambda: collective(x, async_op=True).wait()


def _in_layer(group: ProcessGroup, name: str, whole: np.ndarray) -> Callable[[], object]:
    """Calls the collective as a layer does: on an array that is not shared, and without a place for the result."""
    given = whole[:1] if name == "all_gather" else whole
    collective = getattr(group, name)
    return lambda: collective(given)


def _exchange(runs: int, group: ProcessGroup, message: np.ndarray) -> tuple[float, float]:
    """Undisturbed times of sending a message, and of receiving one at the same time, from when it was there."""
    room, other = np.zeros_like(message), 1 - group.rank
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        group.barrier()
        start = time.perf_counter()
        sending = group.send(message, other, async_op=True)
        sent = time.perf_counter()
        group.recv(room, other, async_op=True).wait()
        received = time.perf_counter() - max(sent, group.matched)
        sending.wait()
        times[0].append(sent - start)
        times[1].append(received)
    return undisturbed(times[0]), undisturbed(times[1])


def alone_seconds(group: ProcessGroup) -> float:
    """Of a collective in a group of one rank, which moves nothing."""
    x = group.empty((16,))
    return _timed(200, group, lambda: group.all_reduce(x, async_op=True).wait())


def _timed(runs: int, group: ProcessGroup, action: Callable[[], object], wait: bool = False) -> float:
    """Undisturbed time of `action`, begun together; with `wait`, from when the message was there."""
    times = []
    for _ in range(runs):
        group.barrier()
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - (max(start, group.matched) if wait else start))
    return undisturbed(times)
