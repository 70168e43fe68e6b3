"""How the devices of a unit are joined, or the units of a larger one: by how many links a group's ring runs at once.

A topology knows places, 0 to the count of what it joins, and how a group lies on them: `dims`, strides and counts of
its places, slowest first. It says nothing of seconds or bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

Dims = tuple[tuple[int, int], ...]  # of places: (stride, count), slowest first


class Way(NamedTuple):
    """How a group's collectives run on a topology.

    width: links that each member sends on at once. hops: links that a pass of a ring, or rings, takes one after the
    other. exchange: links on which a member's bytes leave at once where each has bytes for each.
    """

    width: float
    hops: float
    exchange: float


class Topology(Protocol):
    """How places are joined; all that ask at the same time do alike, and share."""

    def way(self, count: int, dims: Dims | None) -> Way:
        """That of a group of `count` at places with these dims; None where they are irregular."""
        ...

    def message(self, source: int, to: int) -> tuple[int, float]:
        """Of a message while all send theirs as far: the links it crosses, and how many messages share the fullest."""
        ...


@dataclass(frozen=True)
class Switch:
    """Each reaches each other through a switch, with all of its bandwidth."""

    def __str__(self) -> str:
        return "switch"

    def way(self, count: int, dims: Dims | None) -> Way:
        return Way(1, count - 1, 1)

    def message(self, source: int, to: int) -> tuple[int, float]:
        return 1, 1


@dataclass(frozen=True)
class Bus:
    """All transfers share one link: PCI Express through the host's bridges. used: places that send at once."""

    used: int

    def __str__(self) -> str:
        return "bus"

    def way(self, count: int, dims: Dims | None) -> Way:
        return Way(1 / self.used, count - 1, 1 / self.used)

    def message(self, source: int, to: int) -> tuple[int, float]:
        return 1, self.used


@dataclass(frozen=True)
class FullyConnected:
    """Each has a link of its own to each other: as many rings at once as there are others in the group."""

    def __str__(self) -> str:
        return "fully connected"

    def way(self, count: int, dims: Dims | None) -> Way:
        return Way(count - 1, count - 1, count - 1)

    def message(self, source: int, to: int) -> tuple[int, float]:
        return 1, 1


@dataclass(frozen=True)
class Rings:
    """As many rings at once as a table says for each count of members, from two on: the hybrid cube mesh of a DGX-1."""

    rings: tuple[float, ...]

    def __str__(self) -> str:
        return "hybrid cube mesh"

    def way(self, count: int, dims: Dims | None) -> Way:
        width = self.rings[min(count, len(self.rings) + 1) - 2]
        return Way(width, count - 1, width)

    def message(self, source: int, to: int) -> tuple[int, float]:
        return 1, 1


@dataclass(frozen=True)
class Torus:
    """A line, ring or torus of any number of axes, slowest first: links to the neighbours along each of them.

    wraps: of each axis, whether its last place has a link to its first one. A group along a whole axis that wraps runs
    two rings in opposite directions; along a line, where the end has one link, it has the bandwidth of one. Along
    several axes it runs on all of them at once. Groups that lie between each other on an axis share its links.
    """

    shape: tuple[int, ...]
    wraps: tuple[bool, ...]

    def __str__(self) -> str:
        if len(self.shape) == 1:
            return "ring" if self.wraps[0] else "line"
        kind = "torus" if all(self.wraps) else "torus, in part open" if any(self.wraps) else "grid"
        return f"{' × '.join(map(str, self.shape))} {kind}"

    def way(self, count: int, dims: Dims | None) -> Way:
        found = None if dims is None else self._along(dims)
        if found is None:  # it lies on no axes: a line over all places between its ends
            return Way(1, count - 1, 4 / count)
        width = hops = 0.0
        exchange = float("inf")
        for axis, step, size in found:
            ring = self.wraps[axis] and step * size == self.shape[axis]
            width += (2 if ring and size > 2 else 1) / step
            hops += step * (size // 2 if ring else size - 1)
            # Half of the members send half of their bytes over the links that cut the axis in two, each way.
            sides = 2 if ring and size > 2 else 1
            exchange = min(exchange, 4 * sides * (count - 1) / (count * size * step))
        return Way(width, hops, exchange)

    def message(self, source: int, to: int) -> tuple[int, float]:
        hops, fullest = 0, 1
        for size, wraps, stride in zip(self.shape, self.wraps, self._strides, strict=True):
            apart = abs(source // stride % size - to // stride % size)
            apart = min(apart, size - apart) if wraps else apart
            hops, fullest = hops + apart, max(fullest, apart)
        return hops, fullest

    @property
    def _strides(self) -> tuple[int, ...]:
        return tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def _along(self, dims: Dims) -> list[tuple[int, int, int]] | None:
        """(axis, step along it, members along it) of each axis that a group spans; None where it spans no such."""
        found, strides = [], self._strides
        for stride, count in dims:
            while count > 1:
                axis = next((a for a, s in enumerate(strides) if s <= stride < s * self.shape[a]), None)
                if axis is None or stride % strides[axis] or self.shape[axis] % (stride // strides[axis]):
                    return None
                step = stride // strides[axis]
                size = min(count, self.shape[axis] // step)
                if count % size:
                    return None
                found.append((axis, step, size))
                stride, count = strides[axis] * self.shape[axis], count // size
        return found


def slice_shape(count: int, whole: Sequence[int], cube: int | None = None) -> tuple[int, ...]:
    """The shape of a slice of `count` chips of a torus, of the boxes there are the least long, longest side first.

    whole: the shape of a whole pod, which holds the slice, longest side first. cube: of pods that optical switches join
    from cubes of that side, in which an axis may be as long as the cubes last (Jouppi et al. 2023, ISCA). A count that
    fits in no such box is a line.
    """
    if count == prod(whole):
        return tuple(whole)
    boxes = _boxes(count, len(whole), prod(whole) if cube else whole[0])
    if not cube:
        boxes = [box for box in boxes if all(side <= limit for side, limit in zip(box, whole, strict=True))]
    of_cubes = [box for box in boxes if cube and all(side % cube == 0 for side in box)]
    return min(of_cubes or boxes or [(count,)], key=sum)


def _boxes(count: int, axes: int, longest: int) -> list[tuple[int, ...]]:
    """All boxes of so many places, their sides from the longest down."""
    if axes == 1:
        return [(count,)] if count <= longest else []
    return [
        (side, *rest)
        for side in range(1, min(count, longest) + 1)
        if count % side == 0
        for rest in _boxes(count // side, axes - 1, side)
    ]
