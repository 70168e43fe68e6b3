"""Ring: every rank sends to its right neighbour alone, all of them at the same time."""

from __future__ import annotations

import numpy as np

from minidl.parallel.collectives.cost import Cost, pieces_of, received, reduction
from minidl.parallel.group import ProcessGroup


def ring_reduce_scatter(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Piece number `rank` of the reduction, cut by `np.array_split`. The other pieces of `x` become partial sums.

    Piece i starts at rank i + 1 and collects every rank's part on its way round to rank i.
    """
    n, rank = group.size, group.rank
    pieces, ufunc = pieces_of(x, n), reduction(op)
    for step in range(n - 1):
        group.send(pieces[(rank - step - 1) % n], (rank + 1) % n)
        piece = pieces[(rank - step - 2) % n]
        ufunc(piece, received(group, piece, (rank - 1) % n), out=piece)
    return pieces[rank]


def ring_reduce_scatter_cost(size: int, nbytes: float) -> Cost:
    return Cost(size - 1, (size - 1) / size * nbytes)


def ring_all_gather(group: ProcessGroup, x: np.ndarray) -> np.ndarray:
    """Fill `x`, of which every rank has piece number `rank`, with the pieces of the others. In place."""
    n, rank = group.size, group.rank
    pieces = pieces_of(x, n)
    for step in range(n - 1):
        group.send(pieces[(rank - step) % n], (rank + 1) % n)
        group.recv(pieces[(rank - step - 1) % n], src=(rank - 1) % n)
    return x


def ring_all_gather_cost(size: int, nbytes: float) -> Cost:
    return Cost(size - 1, (size - 1) / size * nbytes)


def ring_all_reduce(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Reduce-scatter, then all-gather: no algorithm sends fewer bytes (Patarasu and Yuan 2009, theorem 1). In place.

    P. Patarasu and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel and
    Distributed Computing 69(2), 2009.
    """
    ring_reduce_scatter(group, x, op)
    return ring_all_gather(group, x)


def ring_all_reduce_cost(size: int, nbytes: float) -> Cost:
    return Cost(2 * (size - 1), 2 * (size - 1) / size * nbytes)


def ring_broadcast(group: ProcessGroup, x: np.ndarray, src: int = 0) -> np.ndarray:
    """Pass `size` pieces of `x` from `src` along the ring, each as soon as it is there: a pipeline. In place."""
    n, place = group.size, (group.rank - src) % group.size
    for piece in pieces_of(x, n):
        if place > 0:
            group.recv(piece, src=(group.rank - 1) % n)
        if place < n - 1:
            group.send(piece, (group.rank + 1) % n)
    return x


def ring_broadcast_cost(size: int, nbytes: float) -> Cost:
    """The last of `size` pieces leaves `src` in step size, and needs size - 2 steps more to the last rank."""
    return Cost(2 * (size - 1), 2 * (size - 1) / size * nbytes)


def ring_reduce(group: ProcessGroup, x: np.ndarray, dst: int = 0, op: str = "sum") -> np.ndarray:
    """Reduce `size` pieces along the ring, from the rank after `dst` round to `dst`. On the others `x` is spoilt."""
    n, place, ufunc = group.size, (group.rank - dst - 1) % group.size, reduction(op)
    for piece in pieces_of(x, n):
        if place > 0:
            ufunc(piece, received(group, piece, (group.rank - 1) % n), out=piece)
        if place < n - 1:
            group.send(piece, (group.rank + 1) % n)
    return x


ring_reduce_cost = ring_broadcast_cost  # the same pipeline, the other way round


def ring_shift(group: ProcessGroup, x: np.ndarray) -> np.ndarray:
    """What the left neighbour has as `x`: one message from each rank to the next, what ring attention is made of.

    H. Liu, M. Zaharia and P. Abbeel, "Ring Attention with Blockwise Transformers for Near-Infinite Context", 2023.
    """
    if group.size == 1:
        return x.copy()
    group.send(x, (group.rank + 1) % group.size)
    return received(group, x, (group.rank - 1) % group.size)


def ring_shift_cost(size: int, nbytes: float) -> Cost:
    """One message, of all of `x`."""
    return Cost(1, nbytes) if size > 1 else Cost(0, 0.0)
