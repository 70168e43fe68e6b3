"""Time of a matrix product by its shape: tiles, waves, depth, the feeding of tiles, alignment, sustained power."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

WIDTH = {"float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "float4": 0.5}  # bytes
SHORTEST_SPLIT = 256  # steps along k, of which a part has at least as many
VECTOR_DEPTH = 16.0  # CUTLASS's SIMT kernels of float32: two stages of 8 steps along k
MATRIX_UNITS = 3.0  # times the rate of other arithmetic, from which on products are taken to run in matrix units
Tiles = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Products:
    """What products of m x k with k x n take, a batch of them at a time, on `units` units that compute tiles of C.

    A tile that sticks out of C costs as much as a full one; tiles come in waves of `units` ("tile and wave
    quantisation", NVIDIA, Matrix Multiplication Background User's Guide), and the last, of which only a share x of the
    units has work, takes x ** `last_wave` of a whole one: with 0 as long as one. Where tiles are few, k is split among
    units and a second kernel adds the parts up (split-K); of all tiles and splits the fastest is taken.

    fraction: of the peak, what whole waves of the largest tile reach; fractions: of some dtypes. depth: steps along k
    that a tile loses in starting and ending, at most VECTOR_DEPTH outside of matrix units; vector_flops: the rate of
    other arithmetic, by which these are known. inner: k is rounded up to a multiple of it. start_seconds: of a kernel.
    feed_bandwidth: bytes a second with which units get the rows and columns of A and B, which smaller tiles use less
    often. accumulate: share of the memory traffic of C that shows where a product is added to it. sustained: share of
    the peak that power allows for longer than `burst_seconds`. unaligned, unaligned_batched: shares of the peak where
    rows of A, B or C are not a multiple of `alignment` bytes, in one product and in a batch.
    """

    units: int
    tiles: Tiles
    memory_bandwidth: float
    fraction: float = 1.0
    fractions: Mapping[str, float] = field(default_factory=dict)
    depth: float = 0.0
    vector_flops: float = 0.0
    last_wave: float = 0.0
    inner: int = 1
    start_seconds: float = 0.0
    feed_bandwidth: float = math.inf
    accumulate: float = 0.0
    sustained: float = 1.0
    burst_seconds: float = 0.0
    alignment: int = 1
    unaligned: float = 1.0
    unaligned_batched: float = 1.0

    def seconds(
        self, batch: int, m: int, n: int, k: int, layout: str | None, accumulated: float, dtype: str, peak: float
    ) -> float:
        """layout: of A and B, as `KernelCall.options` has it; None where they always lie well. accumulated: bytes that
        are read and written where the product is added to C."""
        width, flops = WIDTH.get(dtype, 4), 2 * batch * m * n * k
        fraction = self.fractions.get(dtype, self.fraction)
        if layout and not self._aligned(m, n, k, layout, width):
            fraction = min(fraction, self.unaligned if batch == 1 else self.unaligned_batched)
        depth = self.depth if peak > MATRIX_UNITS * self.vector_flops else min(self.depth, VECTOR_DEPTH)
        rate, steps = peak * fraction, -(-k // self.inner) * self.inner + depth
        needed = width * peak / (2 * self.feed_bandwidth)  # reuse of a tile, at which feeding it takes as long
        found = math.inf
        for tile_m, tile_n, reuse in self._tiles:
            fed = rate if reuse >= needed else rate * reuse / needed
            if flops > found * fed:
                break  # the smaller ones are slower yet
            tiles = batch * -(-m // tile_m) * -(-n // tile_n)
            step = 2 * self.units * tile_m * tile_n / fed
            found = min(found, step * self._waves(tiles) * steps)
            if 2 * tiles <= self.units and k > SHORTEST_SPLIT and self.last_wave < 1:
                splits = min(self.units // tiles, -(-k // SHORTEST_SPLIT))
                added = self.start_seconds + splits * 8 * batch * m * n / self.memory_bandwidth
                found = min(found, step * self._waves(tiles * splits) * (k / splits + depth) + added)
        found = max(found, flops / (peak * self.sustained) - self.burst_seconds)
        return self.start_seconds + found + self.accumulate * accumulated / self.memory_bandwidth

    def reached(self, dtype: str) -> float:
        """The share of the peak that large products of `dtype` reach."""
        return min(self.fractions.get(dtype, self.fraction), self.sustained)

    @cached_property
    def _tiles(self) -> list[tuple[int, int, float]]:
        """By how often they use what they get, the most first."""
        return sorted(((m, n, m * n / (m + n)) for m, n in self.tiles), key=lambda tile: -tile[2])

    def _waves(self, tiles: int) -> float:
        whole, rest = divmod(tiles, self.units)
        return whole + (rest / self.units) ** self.last_wave if rest else whole

    def _aligned(self, m: int, n: int, k: int, layout: str, width: float) -> bool:
        """Whether the rows of all three lie in memory at multiples of `alignment` bytes."""
        rows = (k if layout[0] == "N" else m), (n if layout[1] == "N" else k), n
        return not any(row * width % self.alignment for row in rows)
