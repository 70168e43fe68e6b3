"""Time of one kernel call as kernels were timed on this machine, between the sizes in which they were."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from minidl.kernels.meta import KernelCall
from minidl.parallel.prepare import FLOPS_PER_BYTE
from minidl.units import counted
from simulator.compute.convolution import convolution
from simulator.compute.interpolation import Points, interpolate
from simulator.compute.timed import ATTENTION, as_computed

SMALL = 1 << 16  # bytes: up to here the time of a kernel is mostly that of calling it, which does not grow


@dataclass(frozen=True)
class Measured:
    """Kernel calls as they were timed on this machine, interpolated between the sizes that were timed.

    gemm_sizes: the sizes along m, n and k for which `gemm_seconds` holds the time of a product, m slowest. kernels: for
    each kernel's name, (bytes moved, seconds) by rising bytes, or FLOPs of ATTENTION; for a convolution's name and
    algorithm, what it takes beyond its product by its `rest`. contention: by what factor kernels are slower while all
    cores are busy, by bytes moved, and of products. python: (bytes that a kernel moved, seconds of Python after it).
    device: see `Compute`.
    """

    gemm_sizes: tuple[int, ...]
    gemm_seconds: tuple[float, ...]
    kernels: Mapping[str, Points]
    contention: Points
    matmul_contention: float
    python: Points
    instruction_seconds: float
    device: str = "cpu"
    dispatch_seconds = 0.0  # is within what was timed

    def flops_per_byte(self, dtype: str) -> float:
        return FLOPS_PER_BYTE  # of `train`, which cuts a chain as is simulated

    def price(self, call: KernelCall) -> tuple[float, float]:
        seconds, contention = self._kernel(as_computed(call, self.device))
        python = interpolate(self.python, call.bytes_read + call.bytes_written, growing=False)
        return seconds + python, contention

    def _kernel(self, call: KernelCall) -> tuple[float, float]:
        moved = call.bytes_read + call.bytes_written
        if call.name in ATTENTION and call.name in self.kernels:
            return interpolate(self.kernels[call.name], call.flops), self.matmul_contention
        if call.kind == "product":
            return self.matmul_seconds(*call.shapes[0]), self.matmul_contention
        if call.name not in self.kernels and not moved:
            return 0.0, 1.0  # a view
        if found := convolution(call):
            timed = (self.kernels.get(f"{name}, {call.algorithm}") for name in (call.name, "conv2d"))
            rest = interpolate(next(filter(None, timed), self.kernels["add"]), found.rest)
            return self.matmul_seconds(*found.product) + rest, self.matmul_contention
        return self._by_bytes(call.name, moved), interpolate(self.contention, moved, growing=False)

    def __str__(self) -> str:
        sizes = f"{min(self.gemm_sizes):,} to {max(self.gemm_sizes):,}"
        return f"as timed: products of matrices {sizes} a side, and {counted(len(self.kernels), 'kernel')} beside"

    def _by_bytes(self, name: str, moved: int) -> float:
        """Seconds of a kernel that moves so many bytes; one timed on small arrays alone grows as `add` does."""
        addition = self.kernels["add"]
        points = self.kernels.get(name, addition)
        largest, seconds = points[-1]
        if moved > largest and largest < SMALL:
            return seconds + interpolate(addition, moved) - interpolate(addition, largest)
        return interpolate(points, moved)

    @cached_property
    def _log_sizes(self) -> list[float]:
        return [math.log(n) for n in self.gemm_sizes]

    def matmul_seconds(self, batch: int, m: int, n: int, k: int) -> float:
        """Trilinear interpolation of the time per FLOP, over the logarithms of m, n and k."""
        if not batch * m * n * k:
            return 0.0
        corners = [self._corners(size) for size in (m, n, k)]
        count, log_seconds = len(self.gemm_sizes), 0.0
        for (a, wa), (b, wb), (c, wc) in product(*corners):
            if weight := wa * wb * wc:
                sizes = self.gemm_sizes
                seconds = self.gemm_seconds[(a * count + b) * count + c]
                log_seconds += weight * math.log(seconds / (sizes[a] * sizes[b] * sizes[c]))
        return batch * m * n * k * math.exp(log_seconds)

    def _corners(self, size: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The two measured sizes around `size`, with their weights; beyond the ends, the end alone."""
        logs = self._log_sizes
        x = min(max(math.log(size), logs[0]), logs[-1])
        i = min(max(bisect.bisect(logs, x) - 1, 0), len(logs) - 2)
        weight = (x - logs[i]) / (logs[i + 1] - logs[i])
        return (i, 1 - weight), (i + 1, weight)
