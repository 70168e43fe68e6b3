"""Time of one kernel call on one device: from a datasheet (Roofline), or as measured on this machine (Measured)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import NamedTuple, Protocol

from minidl.kernels.algorithms import CONVOLUTIONS
from minidl.kernels.meta import KernelCall
from minidl.parallel.prepare import FLOPS_PER_BYTE
from minidl.units import counted, scaled

BYTES = {"float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2}
Points = Sequence[tuple[float, float]]


class Compute(Protocol):
    """What prices kernel calls.

    precision: of matrix products and activations. scale: bytes of an activation or gradient relative to float32.
    instruction_seconds: added to every instruction. flops_per_byte: of products, in the time in which it moves a byte.
    device: of minidl, "cpu" or "cuda", whose calls are priced.
    """

    precision: str
    scale: float
    instruction_seconds: float
    flops_per_byte: float
    device: str

    def price(self, call: KernelCall) -> tuple[float, float]:
        """Seconds of `call`, and by what factor it is slower while all cores of a shared machine are busy."""
        ...


@dataclass(frozen=True)
class Roofline:
    """A kernel takes as long as its arithmetic or its memory traffic, whichever is longer, but at least a launch.

    A matrix product runs in tiles on `units` units at a time: a tile that sticks out of the matrix, and a last wave
    that does not fill the units, cost as much as full ones ("tile and wave quantisation", NVIDIA, Matrix Multiplication
    Background User's Guide). depth: the steps along k that a tile loses in starting and ending.
    """

    precision: str
    matrix_flops: float
    vector_flops: float
    memory_bandwidth: float
    launch_seconds: float
    tile: tuple[int, int]
    units: int
    depth: float
    instruction_seconds: float = 0.0
    device = "cpu"

    @property
    def scale(self) -> float:
        return BYTES[self.precision] / 4

    @property
    def flops_per_byte(self) -> float:
        return self.matrix_flops / self.memory_bandwidth

    def price(self, call: KernelCall) -> tuple[float, float]:
        moved = call.bytes_read + call.bytes_written
        if not moved:
            return 0.0, 1.0  # a view
        # Parameters' masters and the optimizer's state stay in float32.
        scale = self.scale if call.dtype == "float32" and call.kind != "update" else 1.0
        if call.kind == "product":
            arithmetic = self._matmul(*call.shapes[0])
        elif call.kind == "convolution":
            arithmetic = call.flops / self.matrix_flops
        else:
            arithmetic = call.flops / self.vector_flops
        return max(self.launch_seconds, arithmetic, moved * scale / self.memory_bandwidth), 1.0

    def __str__(self) -> str:
        products, others = scaled(self.matrix_flops, "FLOP/s"), scaled(self.vector_flops, "FLOP/s")
        memory = scaled(self.memory_bandwidth, "B/s")
        return f"products {products} ({self.precision}), others {others}, memory {memory}"

    def _matmul(self, batch: int, m: int, n: int, k: int) -> float:
        tile_m, tile_n = self.tile
        tiles = batch * math.ceil(m / tile_m) * math.ceil(n / tile_n)
        waves = math.ceil(tiles / self.units)
        return 2 * waves * self.units * tile_m * tile_n * (k + self.depth) / self.matrix_flops


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
    precision = "float32"
    scale = 1.0
    flops_per_byte = FLOPS_PER_BYTE  # of `train`, which cuts a chain as is simulated

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


class Convolution(NamedTuple):
    """What a convolution does by its algorithm.

    product: (batch, m, n, k) of its matrix products. rest: what the time beyond them is in proportion to, or all time
    where there are none: of "windows", the bytes copied into a matrix, each run of them that lies together counting
    RUN_BYTES more; of "winograd", those of transformed tiles; of "direct", FLOPs.
    """

    product: tuple[int, int, int, int]
    rest: int


ATTENTION = ("attention", "attention_grad")  # in tiles: products, but timed by themselves
SMALL = 1 << 16  # bytes: up to here the time of a kernel is mostly that of calling it, which does not grow
RUN_BYTES = 128  # two cache lines: with it, time is proportional to `rest` for 3 to 192 bytes a run


def convolution(call: KernelCall) -> Convolution | None:
    """What a convolution's call does; None for other kernels."""
    if call.kind != "convolution":
        return None
    first, second, *_, result = call.shapes
    # conv2d: input, weight, …, output; conv2d_grad_input, a convolution of the gradient: gradient, weight, result;
    # conv2d_grad_weight: gradient, input, gradient of the weight
    images, weight, out = (second, result, first) if call.name == "conv2d_grad_weight" else (first, second, result)
    (batch, n, *places), (_, channels, *size), (*_, height, width) = out, images, weight
    stride, *_, groups = call.options
    spread = call.name == "conv2d_grad_input" and stride != (1, 1)
    if call.algorithm == "winograd":
        tiles = batch * math.prod(math.ceil(places / 4) for places in places)
        return Convolution((36, tiles, n, channels), 4 * 36 * tiles * (n + channels))
    if call.algorithm == "direct":  # zeros between the elements of the gradient are multiplied like them
        return Convolution((0, 0, 0, 0), call.flops * math.prod(stride) if spread else call.flops)
    if spread:
        places = size  # windows of the result are made at the places of the gradient, and added where they belong
    m, run = batch * math.prod(places), width * channels
    runs = height if groups == 1 else height * width * groups  # only a whole row of a window lies together
    rest = m * (4 * height * run + RUN_BYTES * runs)
    return Convolution((groups, m, n // groups, height * run // groups), rest)


def as_computed(call: KernelCall, device: str) -> KernelCall:
    """The call as `device` computes it: meta notes the CPU's algorithm, for which it may have no kernels."""
    there = not call.algorithm or call.algorithm in CONVOLUTIONS[device]
    return call if there else replace(call, algorithm="windows")


def timed_by(call: KernelCall) -> Convolution | int | None:
    """The size by which the times of a call are kept; None for a matrix product, whose shape tells its time."""
    if call.name in ATTENTION:
        return call.flops
    if call.kind == "product":
        return None
    return convolution(call) or call.bytes_read + call.bytes_written


def timed_as(call: KernelCall) -> str:
    """The name under which a call's times are kept, and its algorithm if there are several."""
    return f"{call.name}, {call.algorithm}" if call.algorithm else call.name


def interpolate(points: Points, x: float, growing: bool = True) -> float:
    """Log-log interpolation between (x, y) points by rising x.

    Below the first point y stays as it is; beyond the last it grows in proportion to x, unless it is not `growing`.
    """
    if x <= points[0][0] or len(points) == 1:
        return points[0][1]
    i = min(bisect.bisect([p[0] for p in points], x), len(points) - 1)
    (x0, y0), (x1, y1) = points[i - 1], points[i]
    x0 = max(x0, 1.0)
    if x >= x1:
        return y1 * x / x1 if growing else y1
    return y0 * (y1 / y0) ** (math.log(x / x0) / math.log(x1 / x0))
