"""How a group's ranks are spread over units of a cluster: nodes, racks, pods, one inside the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import inf, prod
from typing import NamedTuple

import numpy as np

from minidl.parallel.ranks import Ranks
from simulator.network.topologies import Dims


class Part(NamedTuple):
    """Of a group on one level.

    members: how many of what the level joins hold ranks of the group. together: the most of them in one unit of the
    level. fewest: the ranks of the group in the one that holds fewest. dims: how those in a unit lie there, by strides
    and counts; None where they do so irregularly.
    """

    members: int
    together: int
    fewest: int
    dims: Dims | None


MOST_PLACES = 64  # of groups that lie otherwise, looked at for each size of a unit


@lru_cache(maxsize=1 << 14)
def otherwise_placed(ranks: Ranks, sizes: tuple[float, ...], workers: int) -> tuple[Ranks, ...]:
    """Of the groups of a plan like this one, among so many workers, one of each that lies otherwise in units.

    Where strides and units divide one another, all lie alike: this one stands for them. Else a group of 6 in nodes of 8
    lies in one node or in two, by its first rank's place in its node: for each size groups of all places are given, or
    of MOST_PLACES of them.
    """
    if ranks.listed or not ranks.dims:
        return (ranks,)
    strides = [stride for stride, _ in ranks.dims]
    block = strides[0] * ranks.dims[0][1]
    lengths = {n for stride, count in ranks.dims for n in (stride, stride * count)}
    odd = [int(size) for size in sizes if size < workers and any(size % n and n % size for n in lengths)]
    if not odd:
        return (ranks,)
    starts = np.arange(strides[-1])  # of the groups that fill a block of ranks together, and of all blocks
    for (outer, _), (stride, count) in pairwise(ranks.dims):
        starts = np.add.outer(np.arange(0, outer, stride * count), starts).ravel()
    starts = np.add.outer(np.arange(0, workers, block), starts).ravel()
    chosen: set[int] = set()
    for size in odd:
        first = starts[np.unique(starts % size, return_index=True)[1]]
        chosen |= set(first[:: -(-len(first) // MOST_PLACES)].tolist())
    return tuple(Ranks(start, ranks.dims) for start in sorted(chosen))


@lru_cache(maxsize=1 << 14)
def spread(ranks: Ranks, sizes: tuple[float, ...]) -> tuple[Part, ...]:
    """The parts of a group on levels whose units hold so many ranks, smallest first; the last may be infinite.

    Ranks whose strides and the units' sizes divide one another are counted by these; others are counted one by one.
    """
    start, dims, parts = ranks.start, None if ranks.listed else ranks.dims, []
    size, fewest = 1, 1
    for larger in sizes:
        split = None if dims is None else _split(start, dims, larger // size if larger < inf else inf)
        if split is None:
            return tuple(parts) + _counted(ranks, size, sizes[len(parts) :])
        inner, outer = split
        together = prod(count for _, count in inner)
        parts.append(Part(together * prod(count for _, count in outer), together, fewest, inner))
        if larger < inf:
            start, dims, fewest, size = int(start // (larger // size)), outer, fewest * together, int(larger)
    return tuple(parts)


def _split(start: int, dims: Dims, size: float) -> tuple[Dims, Dims] | None:
    """The dims inside a unit of so many places, and those of the units; None where units hold different ones."""
    if size == inf:
        return dims, ()
    inner, outer, last = [], [], start % size
    for stride, count in dims:
        if stride % size == 0:
            outer.append((int(stride // size), count))
            continue
        if size % stride:
            if last + stride * (count - 1) >= size:
                return None
            within = count
        else:
            within = min(count, int(size // stride))
            if count % within:
                return None
            if count > within:
                outer.append((1, count // within))
        inner.append((stride, within))
        last += stride * (within - 1)
    return (tuple(inner), tuple(outer)) if last < size else None


def _counted(ranks: Ranks, size: int, sizes: Sequence[float]) -> tuple[Part, ...]:
    """The parts from the level on whose members hold `size` ranks each."""
    units, held = np.unique(_listed(ranks) // size, return_counts=True)
    parts = []
    for larger in sizes:
        ratio = larger // size if larger < inf else inf
        above = units // ratio if ratio < inf else np.zeros_like(units)
        larger_units, place, together = np.unique(above, return_inverse=True, return_counts=True)
        parts.append(Part(len(units), int(together.max()), int(held.min()), None))
        if ratio < inf:
            held = np.bincount(place, weights=held).astype(int)
            units, size = larger_units, int(larger)
    return tuple(parts)


def _listed(ranks: Ranks) -> np.ndarray:
    if ranks.listed:
        return np.array(ranks.listed)
    found = np.array([ranks.start])
    for stride, count in ranks.dims:
        found = np.add.outer(found, stride * np.arange(count)).ravel()
    return found
