"""The devices of this machine that can be measured, and how each of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minidl import cuda
from simulator.probes import gemm, gemm_on_gpu
from simulator.probes.sizes import ON_CPU, ON_GPU, Sizes


@dataclass(frozen=True)
class MeasuredDevice:
    """One of them.

    name: finds out what it is called; None of the processor. file: its calibration, in the cache. sizes: in which
    products and kernels are timed. gemm_seconds: times the products, see `gemm.gemm_seconds`. parallel: whether several
    workers train on it, which share its cores and communicate.
    """

    name: Callable[[], str] | None
    file: str
    sizes: Sizes
    gemm_seconds: Callable[[Sequence[int]], list[float]]
    parallel: bool


MEASURED_DEVICES = {
    "cpu": MeasuredDevice(None, "calibration.json", ON_CPU, gemm.gemm_seconds, True),
    "cuda": MeasuredDevice(
        lambda: cuda.get_device_name(), "calibration-cuda.json", ON_GPU, gemm_on_gpu.gemm_seconds, False
    ),
}
