"""How long each kernel takes, and Python after it: timed where they are used, not one by one.

Small chains of blocks take a training step on the CPU with every kernel call timed, and the same step on meta says,
call by call, what each of them did.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np

from minidl import kernels
from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.parallel.group import ProcessGroup
from simulator.chains import OF_IMAGES, Chain, Update, kinds
from simulator.compute import convolution, timed_as

CASE_SECONDS = 0.2  # after which a step is timed no more, once there are enough times
Samples = dict[str, dict[object, list[float]]]  # kernel -> bytes moved, or a Convolution -> times


def compile_kernels(group: ProcessGroup, called: Collection[str] | None = None) -> None:
    """Take each step that `kernel_seconds` will time, so that its kernels are compiled: two ranks take half of them."""
    gc.disable()  # Numba makes many objects, few of which are garbage
    for kind in kinds(called):
        if group.size == 1 or (kind in OF_IMAGES) == (group.rank == 0):
            for case in kind():
                case.step("cpu")


def kernel_seconds(
    group: ProcessGroup, called: Collection[str] | None = None
) -> tuple[dict[str, list[tuple[object, float]]], list[tuple[float, float]]]:
    """For each kernel (bytes moved, seconds), or (Convolution, seconds); and of Python after a call (bytes, seconds).

    Python takes several times as long after a kernel that has moved much, and with it Python's data out of the caches.
    called: the kernels that matter, by the names of `timed_as`; all by default.
    """
    samples: Samples = {}
    pauses: dict[int, list[float]] = {}  # by powers of 4 of the bytes that the call before moved
    spying = _spy_seconds()
    for kind in kinds(called):
        for case in kind():
            found = _time_case(case, samples)
            if isinstance(case, Chain):
                for moved, seconds in found:
                    pauses.setdefault(round(math.log(max(moved, 1), 4)), []).append(seconds)
    points = {
        name: sorted((size, statistics.median(times)) for size, times in sizes.items())
        for name, sizes in samples.items()
    }
    python = [(4.0**power, max(statistics.mean(times) - spying, 1e-8)) for power, times in sorted(pauses.items())]
    return points, python


def _time_case(case: Chain | Update, samples: Samples) -> list[tuple[float, float]]:
    """Add the times of a step's kernel calls to `samples`; returns (bytes moved, seconds till the next) of each.

    Medians of nine runs, of five where these take long.
    """
    on_meta, on_cpu = case.step("meta"), case.step("cpu")
    with meta.record() as profile, _spied(MetaArray, lambda: len(profile)) as spied:
        on_meta()
    expected = [(name, profile[before:after]) for name, before, after in spied]

    timed: list[list[float]] = []
    pauses: list[list[float]] = []
    end = time.perf_counter() + CASE_SECONDS
    while len(timed) < 5 or (len(timed) < 9 and time.perf_counter() < end):
        with _spied(np.ndarray, time.perf_counter) as spied:
            on_cpu()
            done = time.perf_counter()
        called, known = [name for name, *_ in spied], [name for name, _ in expected]
        if called != known:
            raise RuntimeError(f"cpu and meta call different kernels: {called} and {known}")
        timed.append([end - start for _, start, end in spied])
        starts = [start for _, start, _ in spied[1:]] + [done]
        pauses.append([start - end for start, (_, _, end) in zip(starts, spied, strict=True)])
    times, after = ([statistics.median(t) for t in zip(*runs, strict=True)] for runs in (timed, pauses))
    for (_, calls), seconds in zip(expected, times, strict=True):
        if len(calls) == 1 and calls[0].name != "matmul":
            call = calls[0]
            size = convolution(call) or call.bytes_read + call.bytes_written
            samples.setdefault(timed_as(call), {}).setdefault(size, []).append(seconds)
    moved = (sum(call.bytes_read + call.bytes_written for call in calls) for _, calls in expected)
    return list(zip(moved, after, strict=True))


def _spy_seconds() -> float:
    """What spying itself adds around a call."""
    with _spied(np.ndarray, time.perf_counter) as spied:
        kernel, x = kernels.BY_ARRAY[np.ndarray].swap_last, np.ones((2, 2))
        runs = []
        for _ in range(20):
            spied.clear()
            began = time.perf_counter()
            for _ in range(100):
                kernel(x)
            runs.append((time.perf_counter() - began - sum(end - start for _, start, end in spied)) / 100)
    return min(runs)


@contextmanager
def _spied(array_type: type, clock: Callable[[], float]) -> Iterator[list[tuple[str, float, float]]]:
    """Collect (kernel, clock before, clock after) of every call that ops make for arrays of `array_type`."""
    calls: list[tuple[str, float, float]] = []
    original = kernels.BY_ARRAY[array_type]

    class Spy:
        """The kernels, each of which notes its calls."""

        def __getattr__(self, name):
            kernel = getattr(original, name)
            if not callable(kernel):
                return kernel

            def timed(*arguments):
                before = clock()
                result = kernel(*arguments)
                calls.append((name, before, clock()))
                return result

            setattr(self, name, timed)
            return timed

    kernels.BY_ARRAY[array_type] = Spy()
    try:
        yield calls
    finally:
        kernels.BY_ARRAY[array_type] = original
