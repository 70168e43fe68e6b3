"""The devices that can be calibrated and compared: how each is measured, and which plans are tried on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minidl import cuda
from minidl.parallel import Plan
from simulator import gpu_probes, probes
from simulator.chains import ON_CPU, ON_GPU, Sizes

PLANS = (
    Plan(),
    Plan(data=2),
    Plan(data=2, sharding="optimizer"),
    Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
    Plan(pipeline=2, micro_batches=4, schedule="1f1b"),
    Plan(tensor=2),
    Plan(data=4),
    Plan(data=2, pipeline=2, micro_batches=2),
    Plan(data=2, tensor=2),
    Plan(tensor=4),
)
FEW_PLANS = (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=4))
QUICK_PLANS = (*FEW_PLANS, Plan(tensor=2), Plan(data=4))

GPU_PLANS = (
    Plan(),
    Plan(micro_batches=4),
    Plan(micro_batches=16),
    Plan(micro_batches=4, recompute="full"),
)
QUICK_GPU_PLANS = (Plan(), Plan(micro_batches=4))


@dataclass(frozen=True)
class Device:
    """One of them.

    name: finds out what it is called; None of the processor. file: its calibration, in the cache. sizes: in which
    products and kernels are timed. gemm_seconds: times the products, see `probes.gemm_seconds`. parallel: whether
    several workers train on it, which share its cores and communicate. plans, few_plans, quick_plans: that a comparison
    tries, also on a second model, or when it is to be quick.
    """

    name: Callable[[], str] | None
    file: str
    sizes: Sizes
    gemm_seconds: Callable[[Sequence[int]], list[float]]
    parallel: bool
    plans: tuple[Plan, ...]
    few_plans: tuple[Plan, ...]
    quick_plans: tuple[Plan, ...]


DEVICES = {
    "cpu": Device(
        None, "calibration.json", ON_CPU, probes.gemm_seconds, True, PLANS, FEW_PLANS, QUICK_PLANS
    ),
    "cuda": Device(
        lambda: cuda.get_device_name(), "calibration-cuda.json", ON_GPU, gpu_probes.gemm_seconds, False,
        GPU_PLANS, GPU_PLANS, QUICK_GPU_PLANS,
    ),
}  # fmt: skip
