"""The parameters of each bucket, by what the profile knows of them: in all, as a flat array, and a replica's share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import chain

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

Parameters = tuple[ParameterProfile, ...]
Share = tuple[ParameterProfile, float]


class BucketParameters:
    """Those of a chain with this profile, cut as `layout` says. The worker's flat arrays have the sizes found here."""

    def __init__(self, plan: Plan, layout: Layout, profile: ChainProfile):
        self.plan, self.layout, self.profile = plan, layout, profile
        self._apart: dict[int, tuple[int, ...]] = {}  # of blocks, the places of those that are apart
        for block, place in sorted({holder for apart in layout.apart for holder in apart.holders}):
            self._apart[block] = (*self._apart.get(block, ()), place)
        self._of: dict[Place, Parameters] = {}
        self._alike: dict[tuple, Parameters] = {}
        self._shares: dict[tuple[int, int, int], tuple[Share, ...]] = {}
        self._flat: dict[tuple[int, int, bool], MetaArray] = {}

    def of(self, place: Place) -> Parameters:
        """The parameters of a bucket; what is apart makes one of its own. Of buckets that are alike the very same."""
        if place not in self._of:
            blocks, (chunk, bucket) = self.profile.blocks, place
            if chunk == APART:  # of several holders the last one is trained, if any is
                last = (holders[-1] for holders in self.layout.apart[bucket].parameters)
                self._of[place] = tuple(blocks[block].parameters[number] for block, number in last)
            else:
                run = range(*self.layout.buckets[chunk][bucket])
                key = tuple((id(blocks[block]), self._apart.get(block)) for block in run)
                if key not in self._alike:
                    self._alike[key] = tuple(chain.from_iterable(map(self._with_others, run)))
                self._of[place] = self._alike[key]
        return self._of[place]

    def _with_others(self, block: int) -> Iterable[ParameterProfile]:
        """Those of a block that are reduced with others."""
        held, apart = self.profile.blocks[block].parameters, self._apart.get(block)
        return (p for number, p in enumerate(held) if number not in apart) if apart else held

    def trained(self, place: Place) -> list[ParameterProfile]:
        return [p for p in self.of(place) if p.trained]

    def shards(self, place: Place) -> int:
        return 1 if self.plan.sharding == "none" else shards(self.plan, self.layout, place)

    def share(self, place: Place, replica: int) -> tuple[Share, ...]:
        """Each trained parameter of a bucket, and which part of it a replica updates: of 0 to 1.

        replica: of all. Those that have other experts have the same share of them if they are neighbours. Of buckets
        that are alike the very same.
        """
        count = self.shards(place)
        key = id(self.of(place)), count, replica * count // self.plan.shards(REPLICAS)
        if key not in self._shares:
            parameters = self.trained(place)
            found = parts([p.elements for p in parameters], key[-1], count)
            self._shares[key] = tuple(
                (p, (part.stop - part.start) / max(p.elements, 1)) for p, part in zip(parameters, found, strict=True)
            )
        return self._shares[key]

    def busiest_share(self, places: Iterable[Place], calls: Callable[[ParameterProfile], int]) -> int:
        """The replica whose shares of these buckets need most calls; `calls` says how many each parameter needs."""
        total = np.zeros(self.plan.shards(REPLICAS), int)
        alike: Counter[tuple[int, int]] = Counter()
        place_of = {}
        for place in places if len(total) > 1 else ():
            key = id(self.of(place)), self.shards(place)
            alike[key] += 1
            place_of[key] = place
        for (key, count), times in alike.items():
            parameters = self.trained(place_of[key, count])
            length, start = share_elements(sum(p.elements for p in parameters), count), 0
            changes = np.zeros(count + 1, int)  # where a parameter begins among the shares, and where it has ended
            for p in parameters:
                if p.elements:
                    changes[start // length] += calls(p)
                    changes[(start + p.elements - 1) // length + 1] -= calls(p)
                start += p.elements
            total += times * np.repeat(changes[:-1].cumsum(), len(total) // count)
        return int(total.argmax())

    def flat(self, place: Place, share: bool = False) -> MetaArray:
        """The flat array that holds the trained parameters of a bucket, or their gradients; or a replica's share."""
        count = self.shards(place)
        key = id(self.of(place)), count, share
        if key not in self._flat:
            parameters = self.trained(place)
            elements = sum(p.elements for p in parameters)
            item = sum(p.nbytes for p in parameters) // elements if elements else 4
            length = flat_elements(elements, count) // (count if share else 1)
            self._flat[key] = MetaArray((length,), f"float{8 * item}")
        return self._flat[key]

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
