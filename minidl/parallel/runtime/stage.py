"""Stage: the part of the model that a rank holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from minidl import random
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.parallel.instructions.buffers import TIED
from minidl.parallel.layout import Layout, flat_elements, parts, share_of
from minidl.parallel.mesh import Mesh
from minidl.parallel.profile import chain_of


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
    """The chunks of the chain that a rank holds, bucket by bucket; `ties` are the buckets of what blocks share.

    placed: of each block when it began to be made, when it was made on the host, and when it lay on its device.
    shares: into how many parts of equal length, one for each replica, the update of a bucket is cut. device: where its
    arrays lie.
    """

    def __init__(
        self, model: Module, layout: Layout, mesh: Mesh, seed: int, dtype: np.dtype, shares: int = 1, device="cpu"
    ):  # fmt: skip
        self.mesh, self.dtype, self.shares, self.layout, self.device = mesh, dtype, shares, layout, device
        self.number, self.chunks = mesh.coordinate("pipeline"), {}
        self.placed: dict[int, tuple[float, float, float]] = {}
        chain = chain_of(model)
        prefix = ["" if chain == [model] else str(place) for place in range(len(chain))]
        self._names: dict[int, list[str]] = {}  # of a parameter, wherever in the chain it is
        for place, block in enumerate(chain):
            for name, p in block.named_parameters(prefix[place], remove_duplicate=False):
                self._names.setdefault(id(p), []).append(name)
        tied: dict[int, Parameter] = {}
        for tie in (number for chunk, number in layout.places(self.number) if chunk == TIED):
            block, place = layout.ties[tie].holders[0]
            tied[tie] = p = list(chain[block].parameters())[place]
            if p.device == "meta":  # drawn by its first name, also where another block is
                p.materialize(random.generator(seed, self._names[id(p)][0]), dtype)
                p.move(device)
        shared = set(map(id, tied.values()))
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
                parameters = [p for block in blocks.values() for p in block.parameters() if id(p) not in shared]
                self.chunks[chunk].append(self._bucket(blocks, parameters, layout.is_trained(chunk, number)))
        self.ties = {}
        for tie, p in tied.items():
            p.name = self._names[id(p)][0]
            self.ties[tie] = self._bucket({}, [p], layout.is_trained(TIED, tie))

    def _bucket(self, blocks: dict[int, Module], parameters: list[Parameter], trained: bool) -> Bucket:
        updated = [p for p in parameters if p.requires_grad]
        sizes, shares = [p.numel() for p in updated], self.shares
        share = self.mesh.coordinate("data") if shares > 1 else 0
        gradients, values = (self._flat(sizes) if wanted else None for wanted in (trained, trained and shares > 1))
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

    def _flat(self, sizes: Sequence[int]) -> np.ndarray:
        """A flat array for parameters of these sizes, zero also where none lies."""
        flat = self.mesh.world.empty((flat_elements(sum(sizes), self.shares),), self.dtype, self.device)
        flat.kernels.fill(flat.data, 0)
        return flat.data

    def bucket(self, chunk: int, number: int) -> Bucket:
        """That of a chunk, or what is tied."""
        return self.ties[number] if chunk == TIED else self.chunks[chunk][number]

    @property
    def buckets(self) -> list[Bucket]:
        return [*(bucket for chunk in self.chunks.values() for bucket in chunk), *self.ties.values()]

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
        """But those that are tied to an earlier stage, where they are the same and count."""
        elsewhere = {
            id(p) for tie, b in self.ties.items() for p in b.parameters if self.layout.stages_of(tie)[0] != self.number
        }
        return [p for p in self.parameters if id(p) not in elsewhere]

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
