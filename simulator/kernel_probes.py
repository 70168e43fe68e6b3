"""How long matrix products, kernels and Python after them take on one core.

Kernels are timed where they are used, not one by one: small chains of blocks take a training step on the CPU with every
kernel call timed, and the same step on meta says, call by call, what each of them did. All is gone through for some
rounds: a machine may be half as fast for a second, as when another one shares its cores, and no time may be of one such
second alone.
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
from simulator import probes
from simulator.chains import OF_IMAGES, Chain, Update, kinds
from simulator.compute import convolution, timed_as

TIMES = 2  # that a step is timed in a round
CASE_SECONDS = 0.07  # after which it is timed no more in this round, if it has been once
Points = list[tuple[object, float]]  # (bytes moved, or a Convolution; seconds)


def compile_kernels(group: ProcessGroup, called: Collection[str] | None = None) -> None:
    """Take each step that will be timed, so that its kernels are compiled: two ranks take half of them."""
    gc.disable()  # Numba makes many objects, few of which are garbage
    for kind in kinds(called):
        if group.size == 1 or (kind in OF_IMAGES) == (group.rank == 0):
            for case in kind():
                case.step("cpu")


def products_and_kernels(
    group: ProcessGroup, rounds: int, called: Collection[str] | None = None
) -> tuple[list[float], dict[str, Points], list[tuple[float, float]]]:
    """Seconds of products, as in `probes.gemm_seconds`; each kernel's points; and Python after a call (bytes, seconds).

    Medians over some rounds through all of them. Python takes several times as long after a kernel that has moved much,
    and with it Python's data out of the caches. called: the kernels that matter, by the names of `timed_as`; all by
    default. All steps are held at once: half a gigabyte.
    """
    cases = [case for kind in kinds(called) for case in kind()]
    timed = [_TimedStep(case) for case in cases]
    products: list[list[float]] = []
    for _ in range(rounds):
        products.append(probes.gemm_seconds())
        for step in timed:
            step.run_timed()
    samples: dict[str, dict[object, list[float]]] = {}
    pauses: dict[int, list[float]] = {}  # by powers of 4 of the bytes that the call before moved
    for case, step in zip(cases, timed, strict=True):
        step.add_kernels(samples)
        if isinstance(case, Chain):  # an optimizer alone is no training step
            step.add_pauses(pauses)
    points = {
        name: sorted((size, statistics.median(times)) for size, times in sizes.items())
        for name, sizes in samples.items()
    }
    spying = _spy_seconds()
    python = [(4.0**power, max(statistics.mean(times) - spying, 1e-8)) for power, times in sorted(pauses.items())]
    return [statistics.median(times) for times in zip(*products, strict=True)], points, python


class _TimedStep:
    """A step of a case: what its calls are, and the times of each and of the pause after it, once for every run."""

    def __init__(self, case: Chain | Update):
        on_meta, self.run = case.step("meta"), case.step("cpu")
        with meta.record() as profile, _spied(MetaArray, lambda: len(profile)) as spied:
            on_meta()
        self.names = [name for name, *_ in spied]
        self.calls = [profile[before:after] for _, before, after in spied]
        self.seconds: list[list[float]] = []
        self.pauses: list[list[float]] = []

    def run_timed(self) -> None:
        """Time it, after a run that does not count, which finds the caches full of something else."""
        self.run()
        end = time.perf_counter() + CASE_SECONDS
        for _ in range(TIMES):
            with _spied(np.ndarray, time.perf_counter) as spied:
                self.run()
                done = time.perf_counter()
            if (called := [name for name, *_ in spied]) != self.names:
                raise RuntimeError(f"cpu and meta call different kernels: {called} and {self.names}")
            self.seconds.append([after - before for _, before, after in spied])
            starts = [*(before for _, before, _ in spied[1:]), done]
            self.pauses.append([start - after for start, (_, _, after) in zip(starts, spied, strict=True)])
            if time.perf_counter() > end:
                break

    def add_kernels(self, samples: dict[str, dict[object, list[float]]]) -> None:
        """The median times of its kernels, by their names and by bytes moved, or by Convolution."""
        for calls, seconds in zip(self.calls, zip(*self.seconds, strict=True), strict=True):
            if len(calls) == 1 and calls[0].kind != "product":
                call = calls[0]
                size = convolution(call) or call.bytes_read + call.bytes_written
                samples.setdefault(timed_as(call), {}).setdefault(size, []).append(statistics.median(seconds))

    def add_pauses(self, pauses: dict[int, list[float]]) -> None:
        """The median pauses after its calls."""
        for calls, seconds in zip(self.calls, zip(*self.pauses, strict=True), strict=True):
            moved = sum(call.bytes_read + call.bytes_written for call in calls)
            pauses.setdefault(round(math.log(max(moved, 1), 4)), []).append(statistics.median(seconds))


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
