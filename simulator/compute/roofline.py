"""Time of one kernel call by the figures of a datasheet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from minidl.kernels.meta import KernelCall
from minidl.units import scaled


@dataclass(frozen=True)
class Roofline:
    """A kernel takes as long as its arithmetic or its memory traffic, whichever is longer, but at least a launch.

    A matrix product runs in tiles on `units` units at a time: a tile that sticks out of the matrix, and a last wave
    that does not fill the units, cost as much as full ones ("tile and wave quantisation", NVIDIA, Matrix Multiplication
    Background User's Guide). depth: the steps along k that a tile loses in starting and ending. matrix_flops: by the
    dtype of a product; one that the device's matrix units do not have runs outside them, at `vector_flops`.
    """

    matrix_flops: Mapping[str, float]
    vector_flops: float
    memory_bandwidth: float
    launch_seconds: float
    tile: tuple[int, int]
    units: int
    depth: float
    dispatch_seconds: float = 0.0
    instruction_seconds = 0.0
    device = "cpu"  # as meta notes calls: by its choice of algorithms

    def flops_per_byte(self, dtype: str) -> float:
        return self._matrix_flops(dtype) / self.memory_bandwidth

    def _matrix_flops(self, dtype: str) -> float:
        return self.matrix_flops.get(dtype, self.vector_flops)

    def price(self, call: KernelCall) -> tuple[float, float]:
        moved = call.bytes_read + call.bytes_written
        if not moved:
            return 0.0, 1.0  # a view
        if call.kind == "product":
            arithmetic = self._matmul(*call.shapes[0]) / self._matrix_flops(call.dtype)
        elif call.kind == "convolution":
            arithmetic = call.flops / self._matrix_flops(call.dtype)
        else:
            arithmetic = call.flops / self.vector_flops
        return max(self.launch_seconds, arithmetic, moved / self.memory_bandwidth), 1.0

    def __str__(self) -> str:
        fastest = max(self.matrix_flops, key=self.matrix_flops.get)
        products, others = scaled(self.matrix_flops[fastest], "FLOP/s"), scaled(self.vector_flops, "FLOP/s")
        memory = scaled(self.memory_bandwidth, "B/s")
        return f"products {products} ({fastest}), others {others}, memory {memory}"

    def _matmul(self, batch: int, m: int, n: int, k: int) -> float:
        """FLOPs of a product, those counted that its tiles and waves do for nothing."""
        tile_m, tile_n = self.tile
        tiles = batch * math.ceil(m / tile_m) * math.ceil(n / tile_n)
        waves = math.ceil(tiles / self.units)
        return 2 * waves * self.units * tile_m * tile_n * (k + self.depth)
