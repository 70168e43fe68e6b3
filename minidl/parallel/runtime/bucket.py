"""Bucket: parameters of a stage that are gathered, reduced and updated together, and the flat arrays they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.shares import flat_elements, parts, share_of
from minidl.parallel.slots import Place, dropped, shards, slots


@dataclass(frozen=True)
class Bucket:
    """Blocks of a chunk, by their places in the chain, and their parameters; of what is apart these alone.

    gradients: of those that are trained in one flat array, None where no gradient goes back to the bucket. values:
    these in a flat array, None where each has its own. Both may lie in a slot (slots.py). own: which elements of them
    this replica updates. share_values, share_gradients: where these lie, and their reduced gradients; None where every
    replica updates all.
    """

    blocks: dict[int, Module]
    parameters: list[Parameter]
    gradients: np.ndarray | None
    values: np.ndarray | None
    own: slice
    share_values: np.ndarray | None
    share_gradients: np.ndarray | None


class FlatArrays:
    """The flat arrays of a stage, and its parameters in them.

    parameters: those of each bucket; they may be on meta yet.
    """

    def __init__(
        self, plan: Plan, layout: Layout, mesh: Mesh, dtype: np.dtype, device: str,
        parameters: Mapping[Place, Sequence[Parameter]],
    ):  # fmt: skip
        self.plan, self.layout, self.mesh, self.dtype, self.device = plan, layout, mesh, dtype, device
        stage = mesh.coordinate("pipeline")
        self.slots, self.dropped = slots(plan, layout, stage), dropped(plan, layout, stage)
        largest: dict[int, int] = {}  # slot -> elements of the largest bucket that comes there
        for place, slot in self.slots.items():
            sizes = [p.numel() for p in parameters[place] if p.requires_grad]
            largest[slot] = max(largest.get(slot, 0), flat_elements(sum(sizes), self._shares(place)))
        self.local = {slot: self._zeros(elements) for slot, elements in largest.items()}
        self.gathered = {slot: self._zeros(largest[slot]) for slot in set(self.dropped.values())}

    def bucket(self, place: Place, blocks: dict[int, Module], parameters: list[Parameter]) -> Bucket:
        """The bucket of these parameters, which lie in its arrays from now on, as their gradients will."""
        updated = [p for p in parameters if p.requires_grad]
        sizes, shares = [p.numel() for p in updated], self._shares(place)
        share = self.mesh.index(*self._replicas(place)) if shares > 1 else 0
        own, elements = share_of(sum(sizes), share, shares), flat_elements(sum(sizes), shares)
        gradients = values = share_values = share_gradients = None
        slot, group = self.slots.get(place), None  # group: of the replicas that have one copy of the values, or may
        if self.layout.is_trained(*place):
            gradients = self._zeros(elements) if slot is None else self.local[slot][:elements]
            if place in self.dropped:
                values, share_values = self.gathered[slot][:elements], self._zeros(own.stop - own.start)
            elif shares > 1:
                group = self.mesh.group(*self._replicas(place))
                values = group.one_copy((elements,), self.dtype).data
                share_values = values[own]
            if shares > 1:
                share_gradients = gradients[own] if slot is None else self._zeros(own.stop - own.start)
        for p, lies in zip(updated, _in_turn(sizes), strict=True):
            k = p.kernels
            if gradients is not None:
                p.gradient_buffer = k.reshape(k.index(gradients, (lies,)), p.shape)
            if values is not None:
                view = k.reshape(values[lies], p.shape)
                if group is None or group.rank == 0 or not group.shares_memory:
                    k.assign(view, p.data)
                p.data = view
        if group is not None:
            group.barrier()  # the values are there for all
        elif share_values is not None:
            np.copyto(share_values, values[own])
        if share_values is not None:
            owned = parts(sizes, share, shares)
            for p, part, lies in zip(updated, owned, _in_turn([o.stop - o.start for o in owned]), strict=True):
                p.updated, p.share = p.cut.flat(part.start, part.stop), (share_values[lies], share_gradients[lies])
        return Bucket(blocks, parameters, gradients, values, own, share_values, share_gradients)

    def _replicas(self, place: Place) -> tuple[str, ...]:
        return self.plan.spread(self.layout.reduction(*place).replicas)

    def _shares(self, place: Place) -> int:
        return shards(self.plan, self.layout, place)

    def _zeros(self, elements: int) -> np.ndarray:
        """A flat array for parameters, zero also where none lies."""
        flat = self.mesh.world.empty((elements,), self.dtype, self.device)
        flat.kernels.fill(flat.data, 0)
        return flat.data


def _in_turn(sizes: Sequence[int]) -> Iterator[slice]:
    """The places in a flat array of arrays of these sizes, one after the other."""
    ends = list(accumulate(sizes))
    return (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))
