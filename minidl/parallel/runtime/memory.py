"""How much memory a rank holds for its training, by looking at its arrays: measured, not looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from itertools import chain

import numpy as np

from minidl.kernels import BY_ARRAY
from minidl.optim import Optimizer
from minidl.parallel.blocks import several
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.runtime.stage import Stage
from minidl.storage import storages


class HighWater:
    """The most bytes that were held after any instruction, before it has freed anything: `nbytes`.

    Held are the arrays of the stage and of the optimizer, and those in buffers; what shares memory counts once. What a
    kernel makes and drops is not, nor what the interpreter needs.
    """

    def __init__(self, stage: Stage, optimizer: Optimizer | None):
        self.stage, self.optimizer, self.nbytes = stage, optimizer, 0
        self._held: dict[Hashable, dict[int, int]] = {}  # buffer, or the rank itself -> storage -> bytes
        self._users: Counter[tuple[int, int]] = Counter()  # storage and its bytes -> how many of those lie in it
        self._now = 0
        self._hold(self, storages(self._resident()))

    def look(self, i: Instruction, buffers: Mapping[BufferName, object]) -> None:
        """Look at what an instruction has read and written: arrays, and lists of what blocks keep, which is used up."""
        for buffer in (*i.reads, *i.writes):
            value = buffers.get(buffer)
            if isinstance(value, list):
                arrays = chain.from_iterable(block.arrays() for block in value)
            else:
                arrays = (array for array in several(value) if type(array) in BY_ARRAY)
            self._hold(buffer, storages(arrays))
        if any(buffer.holds == "state" for buffer in i.writes):
            self._hold(self, storages(self._resident()))
        self.nbytes = max(self.nbytes, self._now)
        for buffer in i.frees:
            self._hold(buffer, {})

    def _hold(self, holder: Hashable, found: dict[int, int]) -> None:
        """From now on `holder` lies in these storages, and in no others.

        While an instruction uses up what it reads, a message that comes may lie where an array was of which nobody has
        said yet that it is gone: the same id is another storage if it has other bytes.
        """
        for storage in found.items():
            self._now += storage[1] * (self._users[storage] == 0)
            self._users[storage] += 1
        for storage in self._held.pop(holder, {}).items():
            self._users[storage] -= 1
            self._now -= storage[1] * (self._users[storage] == 0)
        if found:
            self._held[holder] = found

    def _resident(self) -> Iterator[np.ndarray]:
        for bucket in self.stage.buckets:
            yield from bucket.arrays
        for tensor in (*self.stage.parameters, *self.stage.buffers):
            yield tensor.data
        for state in self.optimizer.state.values() if self.optimizer else ():
            yield from (value for value in state.values() if type(value) in BY_ARRAY)
