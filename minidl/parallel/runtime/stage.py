"""Stage: the part of the model that a rank holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import numpy as np

from minidl import random
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.parallel.chain_profile import chain_of
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Axis, Mesh
from minidl.parallel.parameter_profile import reduction_of
from minidl.parallel.plan import Plan
from minidl.parallel.runtime.bucket import Bucket, FlatArrays
from minidl.parallel.slots import Place


class Stage:
    """The chunks of the chain that a rank holds, bucket by bucket; `apart` are the buckets of what is apart.

    dropped: the parameters of which this rank has its share alone, but while they are used.
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
        own = self._parameters(chain)
        flat = FlatArrays(plan, layout, mesh, dtype, device, own)
        self.dropped = {p for place in flat.dropped for p in own[place] if p.requires_grad}
        tied = [place for place in own if place[0] == APART and layout.apart[place[1]].tied]
        for p in (p for place in tied for p in own[place]):
            if p.device == "meta":  # drawn by its first name, also where another block is
                p.materialize(random.generator(seed, self._names[id(p)][0]), dtype)
                p.move(device)
        self.apart = {}
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
                self.chunks[chunk].append(flat.bucket((chunk, number), blocks, own[chunk, number]))
                for n in layout.apart_in(chunk, range(number, number + 1)):
                    if (APART, n) not in tied:
                        self.apart[n] = flat.bucket((APART, n), {}, own[APART, n])
        for place in tied:
            for p in own[place]:
                p.name = self._names[id(p)][0]
            self.apart[place[1]] = flat.bucket(place, {}, own[place])

    def _parameters(self, chain: list[Module]) -> dict[Place, list[Parameter]]:
        """Those of each bucket, and of what is apart, which no bucket of a chunk has."""
        found, elsewhere = {}, set()
        for n in (n for chunk, n in self.layout.places(self.number) if chunk == APART):
            first = (holders[0] for holders in self.layout.apart[n].parameters)
            found[APART, n] = [list(chain[block].parameters())[place] for block, place in first]
            elsewhere.update(map(id, found[APART, n]))
        for chunk, n in (place for place in self.layout.places(self.number) if place[0] != APART):
            held = (p for block in chain[slice(*self.layout.buckets[chunk][n])] for p in block.parameters())
            found[chunk, n] = [p for p in held if id(p) not in elsewhere]
        return found

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
