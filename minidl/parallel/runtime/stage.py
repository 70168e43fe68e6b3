"""Stage: the part of the model that a rank holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np

from minidl import random
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.parallel.block_profile import reduction_of
from minidl.parallel.chain_profile import chain_of
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Axis, Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.shares import flat_elements, parts, share_of


@dataclass(frozen=True)
class Bucket:
    """Blocks of a chunk, by their places in the chain, and their parameters.

    gradients: of those that are trained in one flat array, None where no gradient goes back to the bucket. values:
    these in a flat array, None where each has its own. share: what of the flat arrays this replica updates; all of it
    where the update is not shared.
    """

    blocks: dict[int, Module]
    parameters: list[Parameter]
    gradients: np.ndarray | None
    values: np.ndarray | None
    share: slice


class Stage:
    """The chunks of the chain that a rank holds, bucket by bucket; `apart` are the buckets of what is apart.

    placed: of each block when it began to be made, when it was made on the host, and when it lay on its device.
    plan: says which buckets are cut into parts of equal length, of which each replica updates one. device: where its
    arrays lie.
    """

    def __init__(
        self, model: Module, layout: Layout, mesh: Mesh, seed: int, dtype: np.dtype, plan: Plan, device="cpu"
    ):  # fmt: skip
        self.mesh, self.dtype, self.plan, self.layout, self.device = mesh, dtype, plan, layout, device
        self.number, self.chunks = mesh.coordinate("pipeline"), {}
        self._is_first = cache(self._first)  # asked in every step
        self.placed: dict[int, tuple[float, float, float]] = {}
        chain = chain_of(model)
        prefix = ["" if chain == [model] else str(place) for place in range(len(chain))]
        self._names: dict[int, list[str]] = {}  # of a parameter, wherever in the chain it is
        for place, block in enumerate(chain):
            for name, p in block.named_parameters(prefix[place], remove_duplicate=False):
                self._names.setdefault(id(p), []).append(name)
        apart: dict[int, list[Parameter]] = {}
        for n in (number for chunk, number in layout.places(self.number) if chunk == APART):
            first = (holders[0] for holders in layout.apart[n].parameters)
            apart[n] = [list(chain[block].parameters())[place] for block, place in first]
            for p in apart[n]:
                if p.device == "meta":  # drawn by its first name, also where another block is
                    p.materialize(random.generator(seed, self._names[id(p)][0]), dtype)
                    p.move(device)
        elsewhere = {id(p) for parameters in apart.values() for p in parameters}
        for chunk in layout.stages[self.number]:
            self.chunks[chunk] = []
            for number, bucket in enumerate(layout.buckets[chunk]):
                blocks = {place: chain[place] for place in range(*bucket)}
                for place, block in blocks.items():
                    start = time.perf_counter()
                    block.materialize(seed, prefix[place], dtype)
                    made = time.perf_counter()
                    block.to(device)
                    self.placed[place] = start, made, time.perf_counter()
                parameters = [p for block in blocks.values() for p in block.parameters() if id(p) not in elsewhere]
                self.chunks[chunk].append(self._bucket((chunk, number), blocks, parameters))
        self.apart = {}
        for n, parameters in apart.items():
            for p in parameters:
                p.name = self._names[id(p)][0]
            self.apart[n] = self._bucket((APART, n), {}, parameters)

    def _bucket(self, place: tuple[int, int], blocks: dict[int, Module], parameters: list[Parameter]) -> Bucket:
        updated, trained = [p for p in parameters if p.requires_grad], self.layout.is_trained(*place)
        replicas = self.plan.spread(self.layout.reduction(*place).replicas)
        sizes, shares = [p.numel() for p in updated], self.plan.shards(replicas)
        share = self.mesh.index(*replicas) if shares > 1 else 0
        elements = flat_elements(sum(sizes), shares)
        gradients, values = (self._flat(elements) if needed else None for needed in (trained, trained and shares > 1))
        for p, place in zip(updated, _in_turn(sizes), strict=True):
            k = p.kernels
            if gradients is not None:
                p.gradient_buffer = k.reshape(k.index(gradients, (place,)), p.shape)
            if values is not None:
                lies = k.reshape(k.index(values, (place,)), p.shape)
                k.assign(lies, p.data)
                p.data = lies
        if values is not None:
            for p, part in zip(updated, parts(sizes, share, shares), strict=True):
                p.updated = p.cut.flat(part.start, part.stop)
        return Bucket(blocks, parameters, gradients, values, share_of(sum(sizes), share, shares))

    def _flat(self, elements: int) -> np.ndarray:
        """A flat array for parameters, zero also where none lies."""
        flat = self.mesh.world.empty((elements,), self.dtype, self.device)
        flat.kernels.fill(flat.data, 0)
        return flat.data

    def bucket(self, chunk: int, number: int) -> Bucket:
        """That of a chunk, or of what is apart."""
        return self.apart[number] if chunk == APART else self.chunks[chunk][number]

    @property
    def buckets(self) -> list[Bucket]:
        return [*(bucket for chunk in self.chunks.values() for bucket in chunk), *self.apart.values()]

    @property
    def holds_end(self) -> bool:
        """Whether the loss is computed here."""
        return len(self.layout.chunks) - 1 in self.chunks

    @property
    def blocks(self) -> list[Module]:
        return [block for bucket in self.buckets for block in bucket.blocks.values()]

    @property
    def parameters(self) -> list[Parameter]:
        """Each once, in the order of the chain."""
        return list({id(p): p for block in self.blocks for p in block.parameters()}.values())

    @property
    def counted(self) -> list[Parameter]:
        """But those that an earlier stage holds too, where they are the same and count."""
        elsewhere = {
            id(p) for n, b in self.apart.items() for p in b.parameters if self.layout.stages_of(n)[0] != self.number
        }
        return [p for p in self.parameters if id(p) not in elsewhere]

    def is_first(self, p: Parameter, axes: Sequence[str], whole: bool = False) -> bool:
        """Whether of the ranks along `axes` that update the same part of `p`, this one is the first.

        whole: that hold the same, of which each may update a share.
        """
        along = tuple(axis for split in p.cut.splits for axis in split.axes)
        if p.updated.elements is not None and not whole:
            along += reduction_of(p).replicas
        return self._is_first(along, tuple(axes))

    def _first(self, along: tuple[Axis, ...], axes: tuple[str, ...]) -> bool:
        """Whether of the ranks along `axes` that have this one's place along each of `along`, it is the first."""
        mesh = self.mesh
        place = [mesh.index(axis) for axis in along]
        others = map(self.plan.mesh, mesh.ranks(*axes))
        return next(other.rank for other in others if [other.index(axis) for axis in along] == place) == mesh.rank

    def names(self, p: Parameter) -> list[str]:
        """All that a parameter has, in order."""
        return self._names[id(p)]

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
