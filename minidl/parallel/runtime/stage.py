"""Stage: the part of the model that a rank holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from minidl.nn.containers import Sequential
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.parallel.layout import Layout, flat_elements, parts, share_elements
from minidl.parallel.mesh import Mesh
from minidl.parallel.profile import chain_of


@dataclass(frozen=True)
class Bucket:
    """Blocks of a chunk, by their places in the chain, and their parameters, whose gradients lie in one flat array.

    values: the parameters in a flat array, None where each has its own. share: what of the flat arrays this replica
    updates; all of it where the update is not shared.
    """

    blocks: dict[int, Module]
    parameters: list[Parameter]
    gradients: np.ndarray
    values: np.ndarray | None
    share: slice


class Stage:
    """The chunks of the chain that a rank holds, bucket by bucket.

    shares: into how many parts of equal length, one for each replica, the update of a bucket is cut.
    """

    def __init__(self, model: Module, layout: Layout, mesh: Mesh, seed: int, dtype: np.dtype, shares: int = 1):
        self.mesh, self.dtype, self.shares, self.layout = mesh, dtype, shares, layout
        chain, self.chunks = chain_of(model), {}
        names: dict[int, str] = {}  # a parameter that two blocks hold has the first one's name, and is in its bucket
        for chunk in layout.stages[mesh.coordinate("pipeline")]:
            self.chunks[chunk] = []
            for bucket in layout.buckets[chunk]:
                blocks, parameters = {place: chain[place] for place in range(*bucket)}, []
                for place, block in blocks.items():
                    block.materialize(seed, str(place) if isinstance(model, Sequential) else "", dtype)
                    for p in block.parameters():
                        if id(p) not in names:
                            names[id(p)] = p.name
                            parameters.append(p)
                        p.name = names[id(p)]
                self.chunks[chunk].append(self._bucket(blocks, parameters))

    def _bucket(self, blocks: dict[int, Module], parameters: list[Parameter]) -> Bucket:
        sizes, shares = [p.numel() for p in parameters], self.shares
        replica, length = self.mesh.coordinate("data") if shares > 1 else 0, share_elements(sum(sizes), shares)
        gradients, values = self._flat(sizes), self._flat(sizes) if shares > 1 else None
        for p, place in zip(parameters, _in_turn(sizes), strict=True):
            p.gradient_buffer = gradients[place].reshape(p.shape)
            if values is not None:
                lies = values[place].reshape(p.shape)
                lies[...] = p.data
                p.data = lies
        if values is not None:
            for p, part in zip(parameters, parts(sizes, replica, shares), strict=True):
                p.updated_here = part
        return Bucket(blocks, parameters, gradients, values, slice(replica * length, (replica + 1) * length))

    def _flat(self, sizes: Sequence[int]) -> np.ndarray:
        """A flat array for parameters of these sizes, zero also where none lies."""
        array = self.mesh.world.empty((flat_elements(sum(sizes), self.shares),), self.dtype).data
        array[...] = 0
        return array

    @property
    def buckets(self) -> list[Bucket]:
        return [bucket for chunk in self.chunks.values() for bucket in chunk]

    @property
    def blocks(self) -> list[Module]:
        return [block for bucket in self.buckets for block in bucket.blocks.values()]

    @property
    def parameters(self) -> list[Parameter]:
        return [p for bucket in self.buckets for p in bucket.parameters]

    @property
    def buffers(self) -> list[Buffer]:
        return [buffer for chunk in self.chunks for buffer in self.statistics(chunk)]

    def statistics(self, chunk: int) -> list[Buffer]:
        """The buffers of the blocks of `chunk`."""
        return [buffer for b in self.chunks[chunk] for block in b.blocks.values() for buffer in block.buffers()]

    def train(self, mode: bool) -> None:
        for block in self.blocks:
            block.train(mode)


def _in_turn(sizes: Sequence[int]) -> Iterator[slice]:
    """The places in a flat array of arrays of these sizes, one after the other."""
    ends = list(accumulate(sizes))
    return (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))
