"""How long matrix products, kernels and Python after them take on one core, or on a GPU.

Kernels are timed where they are used, not one by one: small chains of blocks take a training step on the device with
every kernel call timed, and the same step on meta says, call by call, what each of them did. All is gone through for
some rounds: a machine may be half as fast for a second, as when another one shares its cores, and no time may be of one
such second alone.

On the CPU times are those for which the thread ran: other programs on its core do not count. On a GPU they are those
of events in its stream before and after a call. A GPU that has caught up with the host waits for it: then a call takes
as long as its launch, and Python after it counts; otherwise the next kernel follows at once.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl import kernels
from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.parallel.group import ProcessGroup
from minidl.parallel.runtime.device import device_of_rank
from simulator.compute.timed import as_computed, timed_as, timed_by
from simulator.measured_devices import MEASURED_DEVICES
from simulator.probes.chains import OF_IMAGES, kinds
from simulator.probes.sizes import Sizes
from simulator.probes.steps import Chain, Update
from simulator.probes.timing import LEAST_SECONDS, reading_seconds

TIMES = 2  # that a step is timed in a round
CASE_SECONDS = 0.07  # after which it is timed no more in this round, if it has been once
Points = list[tuple[object, float]]  # (size by which a kernel is timed, seconds)


def compile_kernels(group: ProcessGroup, device: str, sizes: Sizes, called: Collection[str] | None) -> None:
    """Take each step that will be timed, so that its kernels are compiled: two ranks take half of them."""
    gc.disable()  # Numba makes many objects, few of which are garbage
    for kind in kinds(called, sizes, device):
        if group.size == 1 or (kind in OF_IMAGES) == (group.rank == 0):
            for case in kind(sizes):
                case.step(device)


def products_and_kernels(
    group: ProcessGroup, device: str, sizes: Sizes, called: Collection[str] | None, rounds: int
) -> tuple[list[float], dict[str, Points], list[tuple[float, float]]]:
    """Seconds of products, as in `gemm_seconds`; each kernel's points; and Python after a call (bytes, seconds).

    Medians over some rounds through all of them. Python takes several times as long after a kernel that has moved much,
    and with it Python's data out of the caches. called: the kernels that matter, by the names of `timed_as`, None for
    all. All steps are held at once: half a gigabyte, of a GPU's memory some gigabytes.
    """
    cases = [case for kind in kinds(called, sizes, device) for case in kind(sizes)]
    timed = [_TimedStep(case, device) for case in cases]
    products: list[list[float]] = []
    for _ in range(rounds):
        products.append(MEASURED_DEVICES[device].gemm_seconds(sizes.gemm))
        for step in timed:
            step.run_timed()
    samples: dict[str, dict[object, list[float]]] = {}
    pauses: dict[int, list[float]] = {}  # by powers of 4 of the bytes that the call before moved
    for case, step in zip(cases, timed, strict=True):
        step.add_kernels(samples)
        if isinstance(case, Chain):  # an optimizer alone is no training step
            step.add_pauses(pauses)
    points = {
        name: sorted((size, statistics.median(times)) for size, times in by_size.items())
        for name, by_size in samples.items()
    }
    spying = _spy_seconds(device)
    python = [(4.0**power, max(statistics.mean(times) - spying, 1e-8)) for power, times in sorted(pauses.items())]
    return [statistics.median(times) for times in zip(*products, strict=True)], points, python


class _TimedStep:
    """A step of a case: what its calls are, and the times of each and of the pause after it, once for every run."""

    def __init__(self, case: Chain | Update, device: str):
        self.device, self.run = device, case.step(device)
        with kernels.predicting(device):
            on_meta = case.step("meta")
            with meta.record() as profile, _spied(MetaArray, lambda: len(profile)) as spied:
                on_meta()
        self.names = [name for name, *_ in spied]
        self.calls = [[as_computed(call, device) for call in profile[before:after]] for _, before, after in spied]
        self.seconds: list[list[float]] = []
        self.pauses: list[list[float]] = []

    def run_timed(self) -> None:
        """Time it, after a run that does not count, which finds the caches full of something else."""
        self.run()
        end = time.perf_counter() + CASE_SECONDS
        for _ in range(TIMES):
            clock = _clock(self.device)  # a new one: the longer ago it began, the coarser a GPU's times are
            with _spied(_array_type(self.device), clock.now) as spied:
                self.run()
                done = clock.now()
            if (called := [name for name, *_ in spied]) != self.names:
                raise RuntimeError(f"{self.device} and meta call different kernels: {called} and {self.names}")
            calls = [(clock.seconds(before), clock.seconds(after)) for _, before, after in spied]
            self.seconds.append([max(after - before - clock.reading, LEAST_SECONDS) for before, after in calls])
            starts = [*(before for before, _ in calls[1:]), clock.seconds(done)]
            self.pauses.append([start - after for start, (_, after) in zip(starts, calls, strict=True)])
            if time.perf_counter() > end:
                break

    def add_kernels(self, samples: dict[str, dict[object, list[float]]]) -> None:
        """The median times of its kernels, by their names and sizes, which are those of `timed_by`."""
        for calls, seconds in zip(self.calls, zip(*self.seconds, strict=True), strict=True):
            if len(calls) == 1 and (size := timed_by(calls[0])) is not None:
                samples.setdefault(timed_as(calls[0]), {}).setdefault(size, []).append(statistics.median(seconds))

    def add_pauses(self, pauses: dict[int, list[float]]) -> None:
        """The median pauses after its calls."""
        for calls, seconds in zip(self.calls, zip(*self.pauses, strict=True), strict=True):
            moved = sum(call.bytes_read + call.bytes_written for call in calls)
            pauses.setdefault(round(math.log(max(moved, 1), 4)), []).append(statistics.median(seconds))


class _OwnTime:
    """The clock of this thread."""

    now = staticmethod(time.thread_time)

    def __init__(self):
        self.reading = reading_seconds(self.now)

    def seconds(self, moment: float) -> float:
        return moment


class _GpuTime:
    """The clock of the GPU's stream, whose events take no time to note."""

    reading = 0.0

    def __init__(self, device: str):
        self._device = device_of_rank(device)
        self.now, self.seconds = self._device.now, self._device.seconds


def _clock(device: str) -> _OwnTime | _GpuTime:
    return _OwnTime() if device == "cpu" else _GpuTime(device)


def _spy_seconds(device: str) -> float:
    """What spying itself adds around a call."""
    array_type = _array_type(device)
    x = kernels.for_device(device).full((2, 2), 1.0, np.float32)
    runs = []
    for _ in range(20):
        clock = _clock(device)
        with _spied(array_type, clock.now) as spied:
            kernel = kernels.BY_ARRAY[array_type].swap_last
            began = clock.now()
            for _ in range(100):
                kernel(x)
            ended = clock.now()
        inside = sum(clock.seconds(end) - clock.seconds(start) for _, start, end in spied)
        runs.append((clock.seconds(ended) - clock.seconds(began) - inside) / 100)
    return min(runs)


def _array_type(device: str) -> type:
    """That of the arrays of a device."""
    return next(kind for kind, module in kernels.BY_ARRAY.items() if module.DEVICE == device)


@contextmanager
def _spied(array_type: type, clock: Callable[[], Any]) -> Iterator[list[tuple[str, Any, Any]]]:
    """Collect (kernel, clock before, clock after) of every call that ops make for arrays of `array_type`."""
    calls: list[tuple[str, Any, Any]] = []

    def spy(name, kernel):
        if not callable(kernel):
            return kernel

        def timed(*arguments):
            before = clock()
            result = kernel(*arguments)
            calls.append((name, before, clock()))
            return result

        return timed

    with kernels.interposed(array_type, spy):
        yield calls
