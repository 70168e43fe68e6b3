"""Flat: every rank talks directly to those that have, or need, something of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.parallel.collective_arguments import split_sizes
from minidl.parallel.collectives.cost import Cost, pieces_of, received, reduction
from minidl.parallel.group import ProcessGroup


def flat_all_reduce(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Rank i gets piece i of every rank, reduces them in rank order and sends the result to all. In place.

    What `runtime/shared.py` does by reading and writing the others' memory.
    """
    n, rank = group.size, group.rank
    pieces, others = pieces_of(x, n), [r for r in range(n) if r != rank]
    for r in others:
        group.send(pieces[r], r)
    parts = [received(group, pieces[rank], r) if r != rank else pieces[rank].copy() for r in range(n)]
    for part in parts[1:]:
        reduction(op)(parts[0], part, out=parts[0])
    np.copyto(pieces[rank], parts[0])
    for r in others:
        group.send(parts[0], r)
    for r in others:
        group.recv(pieces[r], src=r)
    return x


def flat_all_reduce_cost(size: int, nbytes: float) -> Cost:
    """Two steps: the size - 1 messages of each do not wait for one another."""
    return Cost(2 if size > 1 else 0, 2 * (size - 1) / size * nbytes)


def pairwise_all_to_all(
    group: ProcessGroup,
    x: np.ndarray,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
) -> np.ndarray:
    """In step s every rank sends one part s ranks on and receives one from s ranks back.

    The sizes are those of `ProcessGroup.all_to_all`. Where they differ, a step takes as long as its largest message.
    """
    n, rank = group.size, group.rank
    if input_split_sizes is None:
        input_split_sizes = split_sizes(len(x), n)
        output_split_sizes = (input_split_sizes[rank],) * n
    out = np.empty((sum(output_split_sizes), *x.shape[1:]), x.dtype)
    sent, parts = (
        np.split(rows, np.cumsum(sizes)[:-1]) for rows, sizes in ((x, input_split_sizes), (out, output_split_sizes))
    )
    parts[rank][...] = sent[rank]
    for step in range(1, n):
        to, source = (rank + step) % n, (rank - step) % n
        group.send(sent[to], to)
        group.recv(parts[source], src=source)
    return out


def pairwise_all_to_all_cost(size: int, nbytes: float) -> Cost:
    """That of equal parts."""
    return Cost(size - 1, (size - 1) / size * nbytes)


def flat_gather(group: ProcessGroup, x: np.ndarray, dst: int = 0) -> np.ndarray:
    """Fill `x` of rank `dst`, of which every rank has piece number `rank`: each of the others sends its own. In place.

    The link of `dst` is the bottleneck (Chan et al. 2007, see `tree_gather`, which sends as many bytes in fewer steps).
    """
    pieces = pieces_of(x, group.size)
    if group.rank != dst:
        group.send(pieces[group.rank], dst)
        return x
    for source in range(group.size):
        if source != dst:
            group.recv(pieces[source], src=source)
    return x


def flat_gather_cost(size: int, nbytes: float) -> Cost:
    return Cost(size - 1, (size - 1) / size * nbytes)


def flat_scatter(group: ProcessGroup, x: np.ndarray, src: int = 0) -> np.ndarray:
    """Piece number `rank` of the `x` of rank `src`, which sends each of the others its own."""
    pieces = pieces_of(x, group.size)
    if group.rank != src:
        return group.recv(pieces[group.rank], src=src)
    for to in range(group.size):
        if to != src:
            group.send(pieces[to], to)
    return pieces[src]


flat_scatter_cost = flat_gather_cost  # the same messages, the other way round
