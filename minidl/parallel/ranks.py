"""Ranks: those of a group, in order, as a start and strides, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import prod

Dimension = tuple[int, int]  # the stride from one to the next, and how many there are


class Ranks(Sequence[int]):
    """The ranks start + i·s + j·t + … for 0 <= i < m, 0 <= j < n and so on, the last index fastest.

    dims: ((s, m), (t, n), …), slowest first, each stride at least as long as all that is inside it. Neighbours that
    make one even run are one, and a dimension of a single place is none, so the same ranks have the same dims. listed:
    the ranks themselves, where they lie on no such lattice; then there are no dims. Anything but going through them all
    takes as long as there are dims. A tuple of the same ranks is equal, but has another hash.
    """

    __slots__ = ("dims", "listed", "size", "start")

    def __init__(self, start: int, dims: Sequence[Dimension] = (), listed: tuple[int, ...] = ()):
        self.start, self.dims, self.listed = start, _merged(dims), listed
        self.size = len(listed) or prod(count for _, count in self.dims)

    @classmethod
    def at(cls, places: Sequence[Sequence[int]], strides: Sequence[int]) -> Ranks:
        """Those at these ascending places along each dimension of an array with these strides, slowest first."""
        start, dims = 0, []
        for along, stride in zip(places, strides, strict=True):
            start += along[0] * stride
            if len(along) > 1:
                if (step := _step(along)) is None:
                    offsets = ([place * s for place in these] for these, s in zip(places, strides, strict=True))
                    return cls(0, listed=tuple(map(sum, product(*offsets))))
                dims.append((step * stride, len(along)))
        return cls(start, dims)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        if self.listed:
            return iter(self.listed)
        if not self.dims:
            return iter((self.start,))
        *outer, (stride, count) = self.dims
        starts = (self.start + sum(place) for place in product(*(range(0, s * n, s) for s, n in outer)))
        return (rank for start in starts for rank in range(start, start + stride * count, stride))

    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            return tuple(map(self.__getitem__, range(*index.indices(self.size))))
        place = index + self.size if index < 0 else index
        if not 0 <= place < self.size:
            raise IndexError(f"there are {self.size} ranks, and none at {index}")
        if self.listed:
            return self.listed[place]
        rank = self.start
        for stride, count in reversed(self.dims):
            place, along = divmod(place, count)
            rank += along * stride
        return rank

    def __contains__(self, rank: int) -> bool:
        return self._place(rank) is not None

    def index(self, rank: int) -> int:
        """The place of `rank`. ValueError if it is none of them."""
        place = self._place(rank)
        if place is None:
            raise ValueError(f"rank {rank} is not among {self}")
        return place

    def _place(self, rank: int) -> int | None:
        if self.listed:
            return self.listed.index(rank) if rank in self.listed else None
        left, place = rank - self.start, 0
        for stride, count in self.dims:
            along, left = divmod(left, stride)
            if not 0 <= along < count:
                return None
            place = place * count + along
        return None if left else place

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ranks):
            return (self.start, self.dims, self.listed) == (other.start, other.dims, other.listed)
        return isinstance(other, tuple) and len(other) == self.size and tuple(self) == other

    def __hash__(self) -> int:
        return hash((self.start, self.dims, self.listed))

    def __repr__(self) -> str:
        return f"Ranks({', '.join(map(str, self[:8]))}{', …' if self.size > 8 else ''})"


def _step(places: Sequence[int]) -> int | None:
    """From each to the next; None where that differs."""
    if isinstance(places, range):
        return places.step
    steps = {after - before for before, after in pairwise(places)}
    return steps.pop() if len(steps) == 1 else None


def _merged(dims: Sequence[Dimension]) -> tuple[Dimension, ...]:
    found: list[Dimension] = []
    for stride, count in dims:
        if count == 1:
            continue
        if found and found[-1][0] == stride * count:
            found[-1] = stride, found[-1][1] * count
        else:
            found.append((stride, count))
    return tuple(found)
