"""How much memory a rank holds for its training, by looking at its arrays: measured, not looked up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from minidl.optim import Optimizer
from minidl.parallel.runtime.stage import Stage
from minidl.storage import storages


class HighWater:
    """The most bytes that were held whenever somebody had it `look`.

    Held are the arrays of the stage and of the optimizer, and those in buffers; what shares memory counts once. What a
    kernel makes and drops is not, nor what the interpreter needs.
    """

    def __init__(self, stage: Stage, optimizer: Optimizer | None):
        self.stage, self.optimizer, self.nbytes = stage, optimizer, 0

    def look(self, buffers: Iterable[object]) -> None:
        """buffers: the values of the worker's: arrays, lists of SavedBlocks, and numbers."""
        held = storages(self._resident())
        for value in buffers:
            if isinstance(value, np.ndarray):
                held |= storages([value])
            elif isinstance(value, list):
                for block in value:
                    held |= block.kept(())
        self.nbytes = max(self.nbytes, sum(held.values()))

    def _resident(self) -> Iterator[np.ndarray]:
        for bucket in self.stage.buckets:
            yield bucket.gradients
        for tensor in (*self.stage.parameters, *self.stage.buffers):
            yield tensor.data
        for state in self.optimizer.state.values() if self.optimizer else ():
            yield from (value for value in state.values() if isinstance(value, np.ndarray))
