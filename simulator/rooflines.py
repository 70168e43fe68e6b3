"""Rooflines of a device: what products reach by the arithmetic that they do for each byte (Williams et al. 2009)."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.compute import Measured
from simulator.hardware import Cluster


@dataclass(frozen=True)
class Rooflines:
    """bandwidth: bytes per second that kernels which stream data reach. flops: FLOP/s of large products, by dtype."""

    bandwidth: float
    flops: dict[str, float]


def rooflines(cluster: Cluster) -> Rooflines:
    """Those of a device of `cluster`, the slowest products first."""
    compute = cluster.compute
    if isinstance(compute, Measured):
        points = (kernel[-1] for name, kernel in compute.kernels.items() if kernel)
        flops = dict(cluster.peaks)
        bandwidth = max(nbytes / seconds for nbytes, seconds in points)
    else:
        bandwidth = compute.memory_bandwidth
        flops = {precision: bandwidth * compute.flops_per_byte(precision) for precision in cluster.peaks}
    return Rooflines(bandwidth, dict(sorted(flops.items(), key=lambda item: item[1])))
