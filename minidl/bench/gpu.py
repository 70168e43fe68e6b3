"""How fast the kernels of a GPU are, beside what its memory and its libraries do, and training steps beside PyTorch's.

A kernel that moves memory is measured against a copy of the driver's, one that multiplies against the library's product
or attention (PyTorch's, in float32 without TF32). A kernel's time is the mean of runs that follow one another, so that
the GPU does not wait for the host to launch it, unless it is shorter than a launch.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

import minidl
from minidl import kernels
from minidl.bench.gpu_cases import cases
from minidl.bench.gpu_timing import mean_seconds
from minidl.bench.workloads import BUILD
from minidl.kernels.cuda import kernel_launch

SECONDS = 0.6  # that a step is run for, unless 3 take longer
RUNS = 20  # of a kernel of PyTorch's
TARGETS = {  # share of the copy bandwidth, or of the library's speed, at least
    "add": 0.85, "softmax": 0.85, "layer_norm": 0.85, "adam_update": 0.85, "matmul": 0.60, "attention": 0.40,
}  # fmt: skip
STEP_TARGETS = {"W4": 2.0}  # ours / PyTorch eager, at most
STEPS = ("W1", "W2", "W4")


@dataclass(frozen=True)
class KernelRow:
    """One kernel: bytes/s as a share of a copy's, of one that moves; speed as a share of the library's, where it is."""

    name: str
    shape: tuple[int, ...]
    seconds: float
    launches: int
    bytes_per_second: float
    flops_per_second: float
    library_seconds: float | None
    share_of_copy: float | None
    share_of_library: float | None
    target: float | None


@dataclass(frozen=True)
class StepRow:
    """A training step: its milliseconds, how many kernels it launches, and PyTorch's milliseconds."""

    workload: str
    first_step_seconds: float
    ours_ms: float
    launches: int
    torch_ms: float | None = None


def torch_on_gpu() -> ModuleType | None:
    """PyTorch, if it is there and finds a GPU; its products are then exact float32's, without TF32."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch


def library_seconds(torch: ModuleType, run: Callable[[], object]) -> float:
    """Mean time of PyTorch's runs, measured as ours are."""
    run(), run()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(RUNS):
        run()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 / RUNS


def launch_seconds(launches: int = 1000) -> float:
    """What it costs the host to launch a kernel, and the GPU to begin it: of many small ones in a row."""
    k = kernels.for_device("cuda")
    x = k.full((32,), 1.0, np.float32)
    k.accumulate(x, x)
    k.device.synchronize()
    start = time.perf_counter()
    for _ in range(launches):
        k.accumulate(x, x)
    k.device.synchronize()
    return (time.perf_counter() - start) / launches


def copy_bandwidth(nbytes: int) -> float:
    """Bytes/s, read and written, of the driver's copy of `nbytes` from the GPU's memory to the same."""
    k = kernels.for_device("cuda")
    source, target = (k.full((nbytes // 4,), 1.0, np.float32) for _ in range(2))
    blocks = target.storage.block, source.storage.block
    return 2 * nbytes / mean_seconds(lambda: k.device.copy_within(blocks[0], 0, blocks[1], 0, nbytes, k.compute))


def measure_kernels(scale: int, copy: float, report: Callable[[str], None]) -> list[KernelRow]:
    """A row for each kernel. scale: as `cases` has it. copy: bytes/s of one. report: told before each what comes."""
    torch, found = torch_on_gpu(), []
    for case in cases(kernels.for_device("cuda"), scale, torch):
        report(case.name)
        before = kernel_launch.launches
        case.run()
        launches = kernel_launch.launches - before
        seconds = mean_seconds(case.run)
        theirs = library_seconds(torch, case.library) if case.library else None
        found.append(KernelRow(
            case.name, case.shape, seconds, launches, case.nbytes / seconds, case.flops / seconds, theirs,
            case.nbytes / seconds / copy if not case.flops else None, theirs and theirs / seconds,
            TARGETS.get(case.name),
        ))  # fmt: skip
    return found


def measure_step(workload: str) -> StepRow:
    """A training step of a reference workload on the GPU; PyTorch's is for the caller to add."""
    with minidl.device("cuda"):
        step = BUILD[workload]()
    start = time.perf_counter()
    step()
    first, before = time.perf_counter() - start, kernel_launch.launches
    step()
    launches = kernel_launch.launches - before
    return StepRow(workload, first, 1e3 * host_seconds(step), launches)


def host_seconds(step: Callable[[], object]) -> float:
    """The median time of a step that ends by reading its loss."""
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 50):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def torch_step_ms(workload: str) -> float | None:
    """PyTorch's step of the same workload, eager float32 on the GPU; None without it."""
    if (torch := torch_on_gpu()) is None:
        return None
    with torch.device("cuda"):
        sys.path.insert(0, str(Path(__file__).parent))
        try:
            step = importlib.import_module("torch_workloads").BUILD[workload](False)
        finally:
            sys.path.pop(0)
        step(), step()
        return 1e3 * host_seconds(step)
