"""Which mesh axis of a plan spans which level of a cluster: what its groups meet of links and adapters."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.parallel.mesh import AXES
from minidl.parallel.plan import Plan
from simulator.hardware import Cluster
from simulator.network import Levels
from simulator.network.spread import otherwise_placed


@dataclass(frozen=True)
class AxisPlace:
    """Where the groups of an axis lie. levels: of each level that they span, its name and how many they join there.

    stride: from a rank to its neighbour along the axis.
    """

    axis: str
    size: int
    stride: int
    levels: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.axis} {self.size:,}: " + " × ".join(f"{count:,} {where}" for where, count in self.levels)


@dataclass(frozen=True)
class Placement:
    """The axes of a plan that have more than one rank, those first whose ranks are closest."""

    axes: tuple[AxisPlace, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.axes))


def placement(plan: Plan, cluster: Cluster) -> Placement:
    """Where the axes of `plan` lie on `cluster`: on none, where its ranks share memory or there is one.

    Ranks are placed in their order, so the axes of the mesh fill nodes from the fastest on: tensor, expert, context,
    data, pipeline. Of groups of an axis that lie otherwise the one is told that goes furthest.
    """
    network, mesh, found = cluster.network, plan.mesh(0), []
    if not isinstance(network, Levels):
        return Placement(())
    for axis in reversed(AXES):
        if mesh.size(axis) == 1:
            continue
        ranks = mesh.ranks(axis)
        groups = map(network.parts, otherwise_placed(ranks, network.sizes, plan.workers))
        furthest = max(groups, key=lambda parts: [part.together for part in reversed(parts)])
        parts = zip(network.levels, furthest, strict=True)
        spans = ((str(level), part.together) for level, part in parts if part.together > 1)
        found.append(AxisPlace(axis, len(ranks), ranks[1] - ranks[0], tuple(spans)))
    return Placement(tuple(found))
