"""Stage: the part of the model that a rank holds."""

from collections.abc import Iterator

import numpy as np

from minidl.nn.containers import Sequential
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.parallel.layout import Layout, share_elements
from minidl.parallel.mesh import Mesh
from minidl.parallel.profile import chain_of


class Stage:
    """The blocks of the chain that a rank holds, with gradients in flat buffers, one for each bucket.

    shares: into how many parts of equal length, one for each replica, the update of a bucket is cut. If there are more
    than one, parameters lie in flat buffers like their gradients, and each owns what falls into this replica's part.
    """

    def __init__(self, model: Module, layout: Layout, mesh: Mesh, seed: int, dtype: np.dtype, shares: int = 1):
        stage = mesh.coordinate("pipeline")
        self.first, end = layout.stages[stage]
        self.blocks = chain_of(model)[self.first : end]
        self.bucket_ranges = [(a - self.first, b - self.first) for a, b in layout.buckets[stage]]
        self.dtype = dtype
        names: dict[int, str] = {}  # a parameter that two blocks hold has the first one's name
        for i, block in enumerate(self.blocks, self.first):
            block.materialize(seed, str(i) if isinstance(model, Sequential) else "", dtype)
            for p in block.parameters():
                p.name = names.setdefault(id(p), p.name)
        self.gradients: list[np.ndarray] = []
        self.values: list[np.ndarray] = []  # of the parameters, where the update is shared
        self.share: list[slice] = []  # of a bucket's flat buffers: what this replica updates
        self.bucket_parameters: list[list[Parameter]] = []
        for first, last in self.bucket_ranges:
            held = [p for block in self.blocks[first:last] for p in block.parameters()]
            parameters = list({id(p): p for p in held}.values())  # each once
            elements = share_elements(sum(p.numel() for p in parameters), shares)
            start = mesh.coordinate("data") * elements if shares > 1 else 0
            self.share.append(slice(start, start + elements))
            self.gradients.append(mesh.world.empty((shares * elements,), dtype).data)
            self.gradients[-1][...] = 0  # also where no parameter lies
            for p, part in _in_turn(parameters):
                p.gradient_buffer = self.gradients[-1][part].reshape(p.shape)
            if shares > 1:
                self.values.append(mesh.world.empty((shares * elements,), dtype).data)
                for p, part in _in_turn(parameters):
                    values = self.values[-1][part].reshape(p.shape)
                    values[...] = p.data
                    p.data = values
                    p.updated_here = slice(max(0, start - part.start), max(0, start + elements - part.start))
            self.bucket_parameters.append(parameters)

    @property
    def parameters(self) -> list[Parameter]:
        return [p for bucket in self.bucket_parameters for p in bucket]

    @property
    def buffers(self) -> list[Buffer]:
        return [buffer for block in self.blocks for buffer in block.buffers()]

    def train(self, mode: bool) -> None:
        for block in self.blocks:
            block.train(mode)


def _in_turn(parameters: list[Parameter]) -> Iterator[tuple[Parameter, slice]]:
    """Each parameter with its place in a flat buffer that holds them one after the other."""
    start = 0
    for p in parameters:
        yield p, slice(start, start + p.numel())
        start += p.numel()
