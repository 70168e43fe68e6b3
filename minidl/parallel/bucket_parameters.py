"""The parameters of each bucket, by what the profile knows of them: in all, as a flat array, and a replica's share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np

from minidl.kernels.meta import MetaArray
from minidl.parallel.chain_profile import ChainProfile
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import REPLICAS
from minidl.parallel.parameter_profile import ParameterProfile
from minidl.parallel.plan import Plan
from minidl.parallel.shares import flat_elements, parts, share_elements
from minidl.parallel.slots import Place, dropped, shards, slots


class BucketParameters:
    """Those of a chain with this profile, cut as `layout` says. The worker's flat arrays have the sizes found here."""

    def __init__(self, plan: Plan, layout: Layout, profile: ChainProfile):
        self.plan, self.layout, self.profile = plan, layout, profile
        self._apart = {holder for apart in layout.apart for holder in apart.holders}

    def of(self, place: Place) -> list[ParameterProfile]:
        """The parameters of a bucket; what is apart makes one of its own."""
        chunk, bucket = place
        if chunk == APART:  # of several holders the last one is trained, if any is
            last = (holders[-1] for holders in self.layout.apart[bucket].parameters)
            return [self.profile.blocks[block].parameters[number] for block, number in last]
        return [
            p
            for block in range(*self.layout.buckets[chunk][bucket])
            for number, p in enumerate(self.profile.blocks[block].parameters)
            if (block, number) not in self._apart
        ]

    def trained(self, place: Place) -> list[ParameterProfile]:
        return [p for p in self.of(place) if p.trained]

    def shards(self, place: Place) -> int:
        return shards(self.plan, self.layout, place)

    def share(self, place: Place, replica: int) -> Iterator[tuple[ParameterProfile, float]]:
        """Each trained parameter of a bucket, and which part of it a replica updates: of 0 to 1.

        replica: of all. Those that have other experts have the same share of them if they are neighbours.
        """
        parameters, count = self.trained(place), self.shards(place)
        found = parts([p.elements for p in parameters], replica * count // self.plan.shards(REPLICAS), count)
        return ((p, (part.stop - part.start) / max(p.elements, 1)) for p, part in zip(parameters, found, strict=True))

    def busiest_share(self, places: Iterable[Place], calls: Callable[[ParameterProfile], int]) -> int:
        """The replica whose shares of these buckets need most calls; `calls` says how many each parameter needs."""
        total = np.zeros(self.plan.shards(REPLICAS), int)
        for place in places:
            parameters, count = self.trained(place), self.shards(place)
            length, start = share_elements(sum(p.elements for p in parameters), count), 0
            changes = np.zeros(count + 1, int)  # where a parameter begins among the shares, and where it has ended
            for p in parameters:
                if p.elements:
                    changes[start // length] += calls(p)
                    changes[(start + p.elements - 1) // length + 1] -= calls(p)
                start += p.elements
            total += np.repeat(changes[:-1].cumsum(), len(total) // count)
        return int(total.argmax())

    def flat(self, place: Place, share: bool = False) -> MetaArray:
        """The flat array that holds the trained parameters of a bucket, or their gradients; or a replica's share."""
        parameters, count = self.trained(place), self.shards(place)
        elements = sum(p.elements for p in parameters)
        item = sum(p.nbytes for p in parameters) // elements if elements else 4
        return MetaArray((flat_elements(elements, count) // (count if share else 1),), f"float{8 * item}")

    @cached_property
    def slots(self) -> dict[Place, int]:
        """Of the buckets of all stages those that have slots: no two stages have the same bucket, but for ties."""
        return self._of_all_stages(slots)

    @cached_property
    def dropped(self) -> dict[Place, int]:
        """Those of which a replica has its share alone."""
        return self._of_all_stages(dropped)

    def _of_all_stages(self, found: Callable) -> dict[Place, int]:
        stages = range(len(self.layout.stages))
        return {place: slot for stage in stages for place, slot in found(self.plan, self.layout, stage).items()}
