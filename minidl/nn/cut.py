"""Cut: which part of a whole array a rank holds, or updates; the one way from a whole to its parts and back."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Split:
    """Slice `index` of `count` along dimension `dim`.

    With `parts` > 1 the dimension is that many equal parts one after the other (query, key and value in one matrix),
    and the slice has its piece of each. axes: of the mesh, along which the slices lie.
    """

    dim: int
    index: int
    count: int
    parts: int = 1
    axes: tuple = ()


@dataclass(frozen=True)
class Cut:
    """Part of an array of shape `whole`: what the `splits` leave and, of that, flat, the `elements`; None for all.

    `Cut(shape)` is all of it; `split` and `flat` give smaller ones. Two cuts are equal where they are the same part.
    """

    whole: tuple[int, ...]
    splits: tuple[Split, ...] = ()
    elements: range | None = None

    def split(self, dim: int, index: int, count: int, parts: int = 1, axes: tuple = ()) -> Cut:
        """Of this, slice `index` of `count` along dimension `dim`, and of each of its `parts`. axes: see Split.

        ValueError where the dimension does not divide, or is split already.
        """
        if self.whole[dim] % (count * parts) or dim in (split.dim for split in self.splits):
            raise ValueError(f"dimension {dim} of {self} cannot be split into {count * parts}")
        return replace(self, splits=(*self.splits, Split(dim, index, count, parts, axes)))

    def flat(self, start: int, stop: int) -> Cut:
        """Of what the splits leave, flat, the elements from `start` to before `stop`."""
        return replace(self, elements=range(start, stop))

    @property
    def is_whole(self) -> bool:
        return not self.splits and self.elements is None

    def holders(self, ranks: int) -> int:
        """How many of so many ranks, over which it is split as far as it is, have this same part."""
        return ranks // math.prod(split.count for split in self.splits)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the part: of one dimension where it is some elements."""
        return self._split_shape if self.elements is None else (len(self.elements),)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def take(self, whole: np.ndarray) -> np.ndarray:
        """The part, of `shape`; it may be a view of `whole`."""
        part = self._pieces(whole).reshape(self._split_shape)
        return part if self.elements is None else part.reshape(-1)[self._slice]

    def paste(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Write the part, of `shape` or flat, into `whole`, which must be contiguous."""
        pieces = self._pieces(whole)
        if self.elements is None:
            pieces[...] = part.reshape(pieces.shape)
        else:
            flat = pieces.reshape(-1)
            flat[self._slice] = part
            pieces[...] = flat.reshape(pieces.shape)

    @property
    def _split_shape(self) -> tuple[int, ...]:
        count = {split.dim: split.count for split in self.splits}
        return tuple(n // count.get(d, 1) for d, n in enumerate(self.whole))

    @property
    def _slice(self) -> slice:
        return slice(self.elements.start, self.elements.stop)

    def _pieces(self, whole: np.ndarray) -> np.ndarray:
        """What the splits leave, a view of `whole` where that is contiguous: split dimensions are (parts, rest)."""
        shape, places, splits = [], [], {split.dim: split for split in self.splits}
        for d, n in enumerate(self.whole):
            split = splits.get(d)
            shape += [split.parts, split.count, n // (split.parts * split.count)] if split else [n]
            places += [slice(None), split.index, slice(None)] if split else [slice(None)]
        return whole.reshape(shape)[tuple(places)]


def join(parts: Iterable[tuple[Hashable, np.ndarray, Cut]]) -> dict[Hashable, np.ndarray]:
    """Whole arrays from named parts that ranks hold, in the order in which the names come.

    Several may hold the same part. ValueError where the parts of a name are more or fewer elements than the whole.
    """
    whole: dict[Hashable, np.ndarray] = {}
    cuts: dict[Hashable, set[Cut]] = {}
    for name, part, cut in parts:
        if cut.is_whole:
            whole[name] = part.reshape(cut.whole)
        else:
            if name not in whole:
                whole[name] = np.empty(cut.whole, part.dtype)
            cut.paste(part, whole[name])
        cuts.setdefault(name, set()).add(cut)
    for name, array in whole.items():
        found = sum(cut.size for cut in cuts[name])
        if found != array.size:
            raise ValueError(f"the parts of {name} have {found} elements, the whole {array.size}")
    return whole
