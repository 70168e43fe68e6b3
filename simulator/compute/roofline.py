"""Time of one kernel call by the figures of a device: of its datasheet, and those that were calibrated on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from minidl.kernels.meta import KernelCall
from minidl.units import scaled
from simulator.compute.convolution import implicit_product, is_small_window
from simulator.compute.products import WIDTH, Products
from simulator.compute.timed import ATTENTION

RECOMPUTED_IN_TILES = 5 / 7  # products that the gradient of attention needs, of those that minidl's own kernels make
HEADS = 32  # widths of heads are rounded up to a multiple of it: Dao et al., the kernels of the flash-attention library
WINOGRAD = 2.25  # Lavin and Gray 2016, F(2x2, 3x3): products of a direct convolution, in those that are left


@dataclass(frozen=True)
class Roofline:
    """A kernel takes a start, and then its arithmetic or its memory traffic, whichever is longer.

    peak_flops: of products, by dtype; one that the device lacks runs as the fastest that is at least as wide.
    vector_flops: of all else. memory_bandwidth: that is reached. products: how long products take, by their shape.
    attention_forward, attention_backward: of attention in tiles, what is reached of the peak; pairs of query and key
    that are not seen are left out. convolution_fraction: of a product of the same shape, what a convolution reaches;
    convolution_fractions: in some dtypes. winograd: convolutions of 3 x 3 and 5 x 5 at stride 1 in float32 are made
    with fewer products. launch_seconds: start and end of a kernel. dispatch_seconds: as in Compute.
    """

    peak_flops: Mapping[str, float]
    vector_flops: float
    memory_bandwidth: float
    products: Products
    launch_seconds: float = 0.0
    dispatch_seconds: float = 0.0
    attention_forward: float = 1.0
    attention_backward: float = 1.0
    convolution_fraction: float = 1.0
    convolution_fractions: Mapping[str, float] = field(default_factory=dict)
    winograd: bool = False
    instruction_seconds = 0.0
    device = "cpu"  # as meta notes calls: by its choice of algorithms

    def flops_per_byte(self, dtype: str) -> float:
        return self.peak(dtype) * self.products.reached(dtype) / self.memory_bandwidth

    def peak(self, dtype: str) -> float:
        """FLOP/s of products of `dtype`; of float32 in bfloat16 where there is no other, as JAX does by default.

        What a device does not multiply it casts to numbers as wide, of which integers are none for floats.
        """
        if dtype in self.peak_flops:
            return self.peak_flops[dtype]
        integers = dtype.startswith("int")
        others = ((name, peak) for name, peak in self.peak_flops.items() if integers or not name.startswith("int"))
        as_wide = (peak for name, peak in others if WIDTH[name] >= WIDTH.get(dtype, 4))
        return max(as_wide, default=self.peak_flops.get("bfloat16", self.vector_flops))

    def price(self, call: KernelCall) -> tuple[float, float]:
        return self._seconds(call), 1.0

    def _seconds(self, call: KernelCall) -> float:
        moved = call.bytes_read + call.bytes_written
        if not moved:
            return 0.0  # a view
        least = self.launch_seconds + moved / self.memory_bandwidth
        if call.name in ATTENTION:
            return max(least, self.launch_seconds + self._attention(call))
        if call.kind == "product":
            layout, accumulates = call.options or (None, False)
            added = 2 * call.bytes_written if accumulates else 0
            return max(least, self._product(*call.shapes[0], layout, added, call.dtype))
        if call.kind == "convolution":
            return max(least, self._convolution(call))
        return max(least, self.launch_seconds + call.flops / self.vector_flops)

    def _product(self, batch: int, m: int, n: int, k: int, layout: str | None, added: float, dtype: str) -> float:
        return self.products.seconds(batch, m, n, k, layout, added, dtype, self.peak(dtype))

    def _attention(self, call: KernelCall) -> float:
        (batch, queries, keys, widths), (seen,) = call.shapes[0], call.options
        products, share, reached = 2, 1.0, self.attention_forward
        if call.name == "attention_grad":
            products, share, reached = 7, RECOMPUTED_IN_TILES, self.attention_backward
        widths = products * HEADS * math.ceil(widths / products / HEADS)
        return 2 * batch * queries * keys * widths * seen * share / (self.peak(call.dtype) * reached)

    def _convolution(self, call: KernelCall) -> float:
        """As the product that it is where windows are not copied into a matrix; in groups, or outside matrix units."""
        fewer = WINOGRAD if self.winograd and call.dtype == "float32" and is_small_window(call) else 1.0
        reached = self.convolution_fractions.get(call.dtype, self.convolution_fraction)
        product = self._product(*implicit_product(call), None, 0, call.dtype)
        seconds, *_, groups = product / (reached * fewer), *call.options
        return seconds if groups == 1 else min(seconds, self.launch_seconds + call.flops / self.vector_flops)

    def __str__(self) -> str:
        dtype = next((d for d in ("bfloat16", "float16") if d in self.peak_flops), next(iter(self.peak_flops)))
        products = scaled(self.peak_flops[dtype] * self.products.reached(dtype), "FLOP/s")
        others, memory = scaled(self.vector_flops, "FLOP/s"), scaled(self.memory_bandwidth, "B/s")
        return f"products {products} ({dtype}), others {others}, memory {memory}"
