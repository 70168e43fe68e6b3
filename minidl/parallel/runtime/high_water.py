"""How much memory a rank holds for its training, by looking at its arrays: measured, not looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import chain

import numpy as np

from minidl.kernels import BY_ARRAY
from minidl.optim import Optimizer
from minidl.parallel.blocks import several
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.memory import KINDS, OTHERS, Memory
from minidl.parallel.runtime.bucket import Bucket
from minidl.parallel.runtime.stage import Stage
from minidl.storage import storages


class HighWater:
    """What was held when it was most, after any instruction, before it has freed anything: `most`.

    Held are the arrays of the stage and of the optimizer, and those in buffers; what shares memory counts once. What a
    kernel makes and drops is not, nor what the interpreter needs.
    """

    def __init__(self, stage: Stage, optimizer: Optimizer | None):
        self.stage, self.optimizer, self.most = stage, optimizer, Memory(0, 0, 0, 0)
        self._held: dict[Hashable, dict[int, int]] = {}  # buffer, or kind of what stays -> storage -> bytes
        self._users: Counter[tuple[int, int]] = Counter()  # storage and its bytes -> how many of those lie in it
        self._now = Counter(dict.fromkeys(KINDS, 0))
        self._hold_resident()

    def look(self, i: Instruction, buffers: Mapping[BufferName, object]) -> None:
        """Look at what an instruction has read and written: arrays, and lists of what blocks keep, which is used up."""
        for buffer in (*i.reads, *i.writes):
            value = buffers.get(buffer)
            if isinstance(value, list):
                arrays = chain.from_iterable(block.arrays() for block in value)
            else:
                arrays = (array for array in several(value) if type(array) in BY_ARRAY)
            self._hold(buffer, arrays)
        if any(buffer.holds == "state" for buffer in i.writes):
            self._hold_resident()
        if sum(self._now.values()) > self.most.total:
            self.most = Memory(**self._now)
        for buffer in i.frees:
            self._hold(buffer, ())

    def _hold(self, holder: Hashable, arrays: Iterable[np.ndarray]) -> None:
        """From now on `holder` lies in the storages of these arrays, and in no others.

        While an instruction uses up what it reads, a message that comes may lie where an array was of which nobody has
        said yet that it is gone: the same id is another storage if it has other bytes.
        """
        found, kind = storages(arrays), holder if holder in KINDS else OTHERS
        for storage in found.items():
            self._now[kind] += storage[1] * (self._users[storage] == 0)
            self._users[storage] += 1
        for storage in self._held.pop(holder, {}).items():
            self._users[storage] -= 1
            self._now[kind] -= storage[1] * (self._users[storage] == 0)
        if found:
            self._held[holder] = found

    def _hold_resident(self) -> None:
        """What stays from step to step, first of all: what else lies there is not counted again."""
        stage, buckets = self.stage, self.stage.buckets
        states = self.optimizer.state.values() if self.optimizer else ()
        self._hold("parameters", (*(t.data for t in (*stage.parameters, *stage.buffers)), *_of(buckets, "values")))
        self._hold("gradients", _of(buckets, "gradients"))
        self._hold("optimizer", (value for state in states for value in state.values() if type(value) in BY_ARRAY))


def _of(buckets: Iterable[Bucket], what: str) -> Iterator[np.ndarray]:
    """The flat arrays that buckets have for their values, or their gradients."""
    found = (getattr(bucket, name) for bucket in buckets for name in (what, f"share_{what}"))
    return (array for array in found if array is not None)
