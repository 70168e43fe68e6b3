"""Cut: which part of a whole array a rank holds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from minidl.nn.parameter import Shard, Stored


@dataclass(frozen=True)
class Cut:
    """A shard of the whole, of `shape`, and of that, flat, the `elements`; None for all of it."""

    shape: tuple[int, ...]
    shard: Shard | None = None
    elements: slice | None = None

    @classmethod
    def held(cls, tensor: Stored) -> Cut:
        """What this rank has of a parameter or buffer."""
        return cls(tensor.shape, tensor.shard)

    @property
    def whole_shape(self) -> tuple[int, ...]:
        return self.shape if self.shard is None else self.shard.whole_shape(self.shape)

    def take(self, whole: np.ndarray) -> np.ndarray:
        """The part of `whole`: of `shape`, or flat where it is some elements of that."""
        part = whole if self.shard is None else np.ascontiguousarray(self.shard.cut(whole))
        return part if self.elements is None else part.reshape(-1)[self.elements]

    def paste(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Write the part into `whole`, which must be contiguous."""
        held = part
        if self.elements is not None:
            held = Cut(self.shape, self.shard).take(whole)
            held.reshape(-1)[self.elements] = part
        if self.shard is not None:
            self.shard.paste(held, whole)


def join(parts: Iterable[tuple[Hashable, np.ndarray, Cut]]) -> dict[Hashable, np.ndarray]:
    """Whole arrays from named parts that ranks hold, in the order in which the names come."""
    whole: dict[Hashable, np.ndarray] = {}
    for name, part, cut in parts:
        if cut.shard is None and cut.elements is None:
            whole[name] = part
        else:
            if name not in whole:
                whole[name] = np.empty(cut.whole_shape, part.dtype)
            cut.paste(part, whole[name])
    return whole
