"""Messages and collectives on a cluster of levels: devices in a node, nodes in a pod, pods in a data centre.

Links are resources. A collective of one group is never alone: by symmetry all groups of its kind run at the same time,
and what they send is laid on the links of every level. A level whose units are joined by adapters shares these among
the groups that cross them. Pieces of the data follow each other through the levels, so the fullest link decides how
long the bytes take, and the steps of all levels add up (as in NCCL's rings and trees, and XLA's on a torus).
Bytes and steps of the algorithms are those of `minidl.parallel.collectives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

from minidl.parallel.collectives import COSTS, TREE_COSTS, tree_all_reduce_cost
from minidl.parallel.ranks import Ranks
from minidl.units import scaled
from simulator.network.link import Link
from simulator.network.spread import Part, otherwise_placed, spread
from simulator.network.topologies import Topology, Way

# What runs between nodes as a tree where that takes fewer steps; its bytes go in pieces, as many as in a ring.
TREES = {"all_reduce": tree_all_reduce_cost, "broadcast": TREE_COSTS["broadcast"], "reduce": TREE_COSTS["reduce"]}


@dataclass(frozen=True)
class Level:
    """What joins devices to units, or units to larger ones.

    name: of a unit ("DGX A100"), or of the network that joins all. size: devices in a unit; infinity of the last level,
    which joins all there are. places: how many are joined in a unit. adapters: links of each of what is joined: of a
    node, its network adapters. ring_adapters: on how many of them rings run that hold 2, 3, … ranks of a node, all such
    rings together, the last for more; none: on those that are nearest to their ranks, which are all. oversubscription:
    by what factor the links beyond the first switch are fewer than those to it. rails: each device's adapter meets only
    those of the same place in other nodes at the first switch, and rings run on these rails. in_network: bytes per
    second of all-reduces whose sum is made in the switches; None where they make none.
    """

    name: str
    size: float
    places: int
    topology: Topology
    link: Link
    adapters: float = 1
    ring_adapters: tuple[float, ...] = ()
    oversubscription: float = 1.0
    rails: bool = False
    in_network: float | None = None

    def __str__(self) -> str:
        """Where one is: "in a DGX A100", "by InfiniBand"."""
        return f"by {self.name}" if self.size == inf else f"in a {self.name}"


@dataclass(frozen=True)
class Levels:
    """A cluster's levels, the smallest units first: the first joins devices."""

    levels: tuple[Level, ...]
    one_copy = False

    @cached_property
    def sizes(self) -> tuple[float, ...]:
        return tuple(level.size for level in self.levels)

    def parts(self, ranks: Ranks) -> tuple[Part, ...]:
        """How a group is spread over the levels."""
        return spread(ranks, self.sizes)

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        """All devices of a unit send at the same time, as those of a stage do: each has its share of the adapters."""
        below = 1
        for level in self.levels:
            if level.size == inf or source // level.size == to // level.size:
                break
            below = level.size
        link, share = level.link, min(1.0, level.adapters / below)
        hops, fullest = level.topology.message(int(source // below), int(to // below))
        if not (level.rails and source % below == to % below):
            share /= level.oversubscription
        moving = nbytes * fullest / (share * link.bandwidth) + link.ramp * sqrt(nbytes)
        return max(link.floor + hops * link.floor_latency, link.start + hops * link.latency + moving)

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        return 0.0  # the two are busy at the same time

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        """Rings in each unit, and rings or trees between units; `nbytes` of the whole tensor.

        workers: how many ranks there are in all, whose groups share the adapters of a unit. Of groups that lie
        otherwise in the units the slowest counts: the others wait for it at their next meeting.
        """
        ranks = ranks if isinstance(ranks, Ranks) else Ranks(0, listed=tuple(ranks))
        groups = otherwise_placed(ranks, self.sizes, workers)
        return max(self._of_group(name, group, nbytes, workers) for group in groups)

    def _of_group(self, name: str, ranks: Ranks, nbytes: float, workers: int) -> float:
        bytes_seconds = steps_seconds = floor = 0.0
        below = 1
        for level, part in zip(self.levels, self.parts(ranks), strict=True):
            if (part.together if below == 1 else part.members) > 1:
                moving, steps, least = self._on(level, part, name, nbytes, below, min(below, workers))
                bytes_seconds = max(bytes_seconds, moving)
                steps_seconds, floor = steps_seconds + steps, floor + least
            below = level.size
        return max(floor, steps_seconds + bytes_seconds)

    layer_seconds = collective_seconds

    def _on(
        self, level: Level, part: Part, name: str, nbytes: float, below: float, used: int
    ) -> tuple[float, float, float]:
        """On one level, seconds of the bytes and of the steps, and the least of both."""
        count = part.together if below == 1 else part.members
        cost, link, share = COSTS[name](count, nbytes), level.link, self._share(level, part, below, used)
        way = level.topology.way(part.together, part.dims) if part.together > 1 else Way(1, 0, 1)
        passes = -(-cost.steps // (count - 1))
        steps = cost.steps * (way.hops if below == 1 else part.together - 1) / (count - 1)
        width, moved = way.width, cost.nbytes
        if name == "all_to_all":
            width, moved = way.exchange, moved * part.fewest
        elif name == "send":  # by each member to the next one
            width, steps = min(width, 1), min(steps, 1)
        if below > 1 and name in TREES:
            steps = min(steps, TREES[name](part.together, nbytes).steps)
        moving = moved / (link.bandwidth * width * share) + passes * link.ramp * sqrt(nbytes)
        if name == "all_reduce" and level.in_network and count > 2:
            moving = min(moving, nbytes / (level.in_network * share))
        return moving, passes * link.start + steps * link.latency, passes * link.floor + steps * link.floor_latency

    def _share(self, level: Level, part: Part, below: float, used: int) -> float:
        """Links that one group has of those of what is joined: of a device its own, of a node those beside it share."""
        if below == 1:
            return 1.0
        adapters = min(level.adapters, max(1.0, level.adapters * used / below))  # the nearest to those used
        if part.fewest > 1 and level.ring_adapters:
            adapters = min(adapters, level.ring_adapters[min(part.fewest, len(level.ring_adapters) + 1) - 2])
        groups = max(1.0, used / part.fewest)
        return adapters / groups / (1.0 if level.rails else level.oversubscription)

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """Of each level, bytes per second that a device has of it where all use it at once."""
        found, below = [], 1
        for level in self.levels:
            width = level.topology.way(level.places, ((1, level.places),)).width if level.places > 1 else 1
            share = 1 if below == 1 else level.adapters / below / level.oversubscription
            found.append(level.link.bandwidth * width * share)
            below = level.size
        return tuple(found)

    def __str__(self) -> str:
        each = zip(self.levels, self.bandwidths, strict=True)
        (inside, bandwidth), *outside = ((level, scaled(rate, "B/s")) for level, rate in each)
        return f"{bandwidth} {inside}" + "".join(f"; {rate} a device {level}" for level, rate in outside)
