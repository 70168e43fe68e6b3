"""The kernels of `minidl bench cuda` as they are predicted for a device, to be laid beside what it measures there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minidl.bench.gpu_cases import cases
from minidl.kernels import meta
from simulator.compute import Compute
from simulator.stacks import Stack


@dataclass(frozen=True)
class PredictedKernel:
    """One kernel in one precision: how long it takes, what it moves, what it multiplies: 0 if it only moves."""

    name: str
    shape: tuple[int, ...]
    precision: str
    seconds: float
    nbytes: float
    flops: float


def predicted_kernels(compute: Compute, precision: str) -> Iterator[PredictedKernel]:
    """Each of them in `precision`."""
    stack = Stack.load("default")
    for case in cases(meta):
        with meta.record() as calls:
            case.run()
        calls = stack.rewrite(calls, precision)
        seconds, nbytes = sum(compute.price(c)[0] for c in calls), sum(c.bytes_read + c.bytes_written for c in calls)
        yield PredictedKernel(case.name, case.shape, precision, seconds, nbytes, case.flops)
