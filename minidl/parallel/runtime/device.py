"""The device of a rank: how data come to it and results back, and what its time is.

A GPU has two streams, which are lanes of the trace: kernels are launched in one, copies run beside them in the other.
Its times are those of events in these streams, on the host's clock. Several ranks on GPUs need no more of it but a
process group whose engine moves memory of the GPU, with events of a third stream: one lane for each kind of
communication.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from minidl import kernels
from minidl.tensor import Tensor

# Is told of a copy: its name, when it begins and ends, its bytes
Told = Callable[[str, object, object, int], None]

Copied = tuple[str, float, float]  # the name of a copy, when it began and ended


ANCHOR_SECONDS = 1.0  # in which two times of a GPU are known to 0.06 microseconds


class Fetched(Protocol):
    """Numbers on their way to the host."""

    def done(self) -> bool: ...
    def numbers(self) -> Sequence[float]:
        """Wait for them."""


class Arrived:
    """Numbers that are there."""

    def __init__(self, numbers: Sequence[float]):
        self._numbers = numbers

    def done(self) -> bool:
        return True

    def numbers(self) -> Sequence[float]:
        return self._numbers


class Host:
    """The CPU: data lie where they are used, and are there at once."""

    name = "cpu"
    now = staticmethod(time.perf_counter)

    def anchor(self) -> None:
        """At the start of a step, so that `seconds` stays exact in a long run."""

    def seconds(self, moment: float) -> float:
        """When a moment that `now` gave was, as time.perf_counter has it."""
        return moment

    def arrivals(self, placed: Mapping[int, tuple[float, float, float]]) -> Iterator[Copied]:
        """The copies by which the blocks of a model came here, of which `placed` says as Stage does when they did."""
        return iter(())

    def load(self, values: np.ndarray, dtype: np.dtype, tell: Told):
        """The values as an array of the device, of `dtype`."""
        return values.astype(dtype, copy=False)

    def fetch(self, values: Sequence[Tensor | float], tell: Told) -> Fetched:
        """Tensors of one element, and numbers, to be numbers of the host."""
        return Arrived([float(value) for value in values])


class Gpu:
    """One NVIDIA GPU, or what emulates it."""

    name = "cuda"

    def __init__(self) -> None:
        self.kernels = kernels.for_device("cuda")
        self._anchors: list[tuple[object, float]] = []  # events, and when they were by the host's clock
        self.anchor()

    def now(self):
        """The moment at which the GPU has done all kernels launched so far."""
        return self.kernels.Event(self.kernels.compute)

    def anchor(self) -> None:
        """Wait for the GPU and look at the host's clock, if that was not in the last ANCHOR_SECONDS.

        The driver gives the time between two events as a float32 of milliseconds, of an hour to a quarter of one, and
        the two clocks drift apart.
        """
        if not self._anchors or time.perf_counter() - self._anchors[-1][1] > ANCHOR_SECONDS:
            event = self.now()
            event.synchronize()
            self._anchors.append((event, time.perf_counter()))

    def seconds(self, moment) -> float:
        if isinstance(moment, float):
            return moment
        moment.synchronize()
        later = bisect.bisect(self._anchors, 0.0, key=lambda anchor: -moment.seconds_since(anchor[0]))
        event, seconds = self._anchors[max(later - 1, 0)]  # the last before it
        return seconds + moment.seconds_since(event)

    def arrivals(self, placed: Mapping[int, tuple[float, float, float]]) -> Iterator[Copied]:
        for place, (start, made, there) in placed.items():
            yield f"block {place} to the device's format", start, made
            yield f"block {place} to the device", made, there

    def load(self, values: np.ndarray, dtype: np.dtype, tell: Told):
        start = time.perf_counter()
        staged = self.kernels.pinned(values.shape, dtype)
        staged[...] = values
        tell("to the device's format", start, time.perf_counter(), staged.nbytes)
        array, begin, end = self.kernels.upload(staged)
        tell("to the device", begin, end, staged.nbytes)
        return array

    def fetch(self, values: Sequence[Tensor | float], tell: Told) -> Fetched:
        return _FromGpu(self.kernels, values, tell)


class _FromGpu:
    """Numbers of the GPU on their way: not before all kernels are done that were launched before."""

    def __init__(self, kernels, values: Sequence[Tensor | float], tell: Told):
        self._tell = tell
        self._values = [kernels.Download(v.data) if isinstance(v, Tensor) else float(v) for v in values]
        for value in self._copies():
            tell("to the host", value.start, value.end, value.values.nbytes)

    def _copies(self):
        return [value for value in self._values if not isinstance(value, float)]

    def done(self) -> bool:
        return all(value.done() for value in self._copies())

    def numbers(self) -> Sequence[float]:
        start = time.perf_counter()
        found = [v if isinstance(v, float) else float(v.numpy()) for v in self._values]
        self._tell("read", start, time.perf_counter(), sum(value.values.nbytes for value in self._copies()))
        return found


def device_of_rank(name: str) -> Host | Gpu:
    """The device on which this rank computes."""
    return Host() if name == "cpu" else Gpu()
