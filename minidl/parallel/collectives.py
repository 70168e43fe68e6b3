"""The textbook algorithms for collectives, written on send and recv, each beside its cost.

In shared memory they lose to `runtime/shared.py`, where every rank reads every other's memory. They are here to be
read, and because networks run them: the simulator prices a collective by the costs below. Most are described by
R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective Communication Operations in MPICH", Int. J. High
Performance Computing Applications 19(1), 2005.

Every function is called by all ranks of `group`, with a contiguous NumPy array of the same shape and dtype. `nbytes` in
a cost is that of the whole tensor: the one that is gathered, scattered, reduced or broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl.parallel.group import ProcessGroup

UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Cost:
    """A collective takes alpha * steps + beta * nbytes: what lies on its critical path.

    steps: messages that wait for one another. nbytes: the bytes in them. A rank sends one message at a time, and
    receives one at a time.
    """

    steps: int
    nbytes: float


def rounds(size: int) -> int:
    """How often a number must double to get from 1 to `size` or beyond: ceil(log2(size))."""
    return (size - 1).bit_length()


# Ring: every rank sends to its right neighbour alone, all of them at the same time


def ring_reduce_scatter(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Piece number `rank` of the reduction, cut by `np.array_split`. The other pieces of `x` become partial sums.

    Piece i starts at rank i + 1 and collects every rank's part on its way round to rank i.
    """
    n, rank = group.size, group.rank
    pieces, ufunc = _pieces(x, n), reduction(op)
    for step in range(n - 1):
        group.send(pieces[(rank - step - 1) % n], (rank + 1) % n)
        piece = pieces[(rank - step - 2) % n]
        ufunc(piece, _received(group, piece, (rank - 1) % n), out=piece)
    return pieces[rank]


def ring_reduce_scatter_cost(size: int, nbytes: float) -> Cost:
    return Cost(size - 1, (size - 1) / size * nbytes)


def ring_all_gather(group: ProcessGroup, x: np.ndarray) -> np.ndarray:
    """Fill `x`, of which every rank has piece number `rank`, with the pieces of the others. In place."""
    n, rank = group.size, group.rank
    pieces = _pieces(x, n)
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
    for piece in _pieces(x, n):
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
    for piece in _pieces(x, n):
        if place > 0:
            ufunc(piece, _received(group, piece, (group.rank - 1) % n), out=piece)
        if place < n - 1:
            group.send(piece, (group.rank + 1) % n)
    return x


ring_reduce_cost = ring_broadcast_cost  # the same pipeline, the other way round


def pairwise_all_to_all(group: ProcessGroup, x: np.ndarray) -> np.ndarray:
    """In step s every rank sends one piece s ranks on and receives one from s ranks back. Dimension 0 must divide."""
    n, rank = group.size, group.rank
    out = x.copy()
    pieces, received = np.split(x, n), np.split(out, n)
    for step in range(1, n):
        to, source = (rank + step) % n, (rank - step) % n
        group.send(pieces[to], to)
        group.recv(received[source], src=source)
    return out


def pairwise_all_to_all_cost(size: int, nbytes: float) -> Cost:
    return Cost(size - 1, (size - 1) / size * nbytes)


def dissemination_barrier(group: ProcessGroup) -> None:
    """In round k every rank signals the rank 2^k on: after the last round each has heard of all.

    D. Hensgen, R. Finkel and U. Manber, "Two algorithms for barrier synchronization", Int. J. Parallel Programming
    17(1), 1988.
    """
    signal = np.empty(0, np.uint8)
    for k in range(rounds(group.size)):
        group.send(signal, (group.rank + 2**k) % group.size)
        group.recv(signal, src=(group.rank - 2**k) % group.size)


def dissemination_barrier_cost(size: int, nbytes: float = 0.0) -> Cost:
    return Cost(rounds(size), 0.0)


# Tree: fewer steps, more bytes; better for short messages


def tree_broadcast(group: ProcessGroup, x: np.ndarray, src: int = 0) -> np.ndarray:
    """Binomial tree: in round k the 2^k ranks that have `x` send it 2^k ranks on. In place."""
    n, place = group.size, (group.rank - src) % group.size
    for k in range(rounds(n)):
        if place < 2**k and place + 2**k < n:
            group.send(x, (group.rank + 2**k) % n)
        elif 2**k <= place < 2 ** (k + 1):
            group.recv(x, src=(group.rank - 2**k) % n)
    return x


def tree_broadcast_cost(size: int, nbytes: float) -> Cost:
    return Cost(rounds(size), rounds(size) * nbytes)


def tree_reduce(group: ProcessGroup, x: np.ndarray, dst: int = 0, op: str = "sum") -> np.ndarray:
    """The tree of `tree_broadcast`, from the leaves to `dst`. On the other ranks `x` is spoilt."""
    n, place, ufunc = group.size, (group.rank - dst) % group.size, reduction(op)
    for k in reversed(range(rounds(n))):
        if place < 2**k and place + 2**k < n:
            ufunc(x, _received(group, x, (group.rank + 2**k) % n), out=x)
        elif 2**k <= place < 2 ** (k + 1):
            group.send(x, (group.rank - 2**k) % n)
    return x


tree_reduce_cost = tree_broadcast_cost  # the same tree, the other way round


def tree_all_reduce(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Reduce to rank 0, then broadcast from it. In place."""
    tree_reduce(group, x, 0, op)
    return tree_broadcast(group, x, 0)


def tree_all_reduce_cost(size: int, nbytes: float) -> Cost:
    return Cost(2 * rounds(size), 2 * rounds(size) * nbytes)


def recursive_doubling_all_reduce(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """In round k two ranks whose numbers differ in bit k exchange and reduce all they have. In place.

    Where `size` is no power of two, each rank beyond the largest one below it first hands its part to a partner that
    takes part, and gets the result at the end.
    """
    n, rank, ufunc = group.size, group.rank, reduction(op)
    power = 1 << (n.bit_length() - 1)
    if rank >= power:
        group.send(x, rank - power)
        group.recv(x, src=rank - power)
        return x
    if rank + power < n:
        ufunc(x, _received(group, x, rank + power), out=x)
    for k in range(rounds(power)):
        group.send(x, rank ^ 2**k)
        ufunc(x, _received(group, x, rank ^ 2**k), out=x)
    if rank + power < n:
        group.send(x, rank + power)
    return x


def recursive_doubling_all_reduce_cost(size: int, nbytes: float) -> Cost:
    power = 1 << (size.bit_length() - 1)
    steps = rounds(power) + (2 if size > power else 0)
    return Cost(steps, steps * nbytes)


def bruck_all_gather(group: ProcessGroup, x: np.ndarray) -> np.ndarray:
    """In round k every rank hands all the pieces it has, at most 2^k, to the rank 2^k back. Piece `rank` is its own.

    J. Bruck et al., "Efficient algorithms for all-to-all communications in multiport message-passing systems", IEEE
    Trans. Parallel and Distributed Systems 8(11), 1997. In place.
    """
    n, rank = group.size, group.rank
    pieces = _pieces(x, n)
    for k in range(rounds(n)):
        count = min(2**k, n - 2**k)
        group.send(np.concatenate([pieces[(rank + i) % n] for i in range(count)]), (rank - 2**k) % n)
        new = [pieces[(rank + i) % n] for i in range(2**k, 2**k + count)]
        message = group.recv(np.concatenate(new), src=(rank + 2**k) % n)
        ends = np.cumsum([piece.size for piece in new])
        for piece, end in zip(new, ends, strict=True):
            piece[...] = message[end - piece.size : end]
    return x


def bruck_all_gather_cost(size: int, nbytes: float) -> Cost:
    return Cost(rounds(size), (size - 1) / size * nbytes)


# Flat: every rank talks to every other directly


def flat_all_reduce(group: ProcessGroup, x: np.ndarray, op: str = "sum") -> np.ndarray:
    """Rank i gets piece i of every rank, reduces them in rank order and sends the result to all. In place.

    What `runtime/shared.py` does by reading and writing the others' memory.
    """
    n, rank = group.size, group.rank
    pieces, others = _pieces(x, n), [r for r in range(n) if r != rank]
    for r in others:
        group.send(pieces[r], r)
    parts = [_received(group, pieces[rank], r) if r != rank else pieces[rank].copy() for r in range(n)]
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


CostFunction = Callable[[int, float], Cost]

COSTS: dict[str, CostFunction] = {
    "all_reduce": ring_all_reduce_cost,
    "reduce_scatter": ring_reduce_scatter_cost,
    "all_gather": ring_all_gather_cost,
    "broadcast": ring_broadcast_cost,
    "reduce": ring_reduce_cost,
    "all_to_all": pairwise_all_to_all_cost,
    "barrier": dissemination_barrier_cost,
}

TREE_COSTS: dict[str, CostFunction] = {
    "all_reduce": recursive_doubling_all_reduce_cost,
    "all_gather": bruck_all_gather_cost,
    "broadcast": tree_broadcast_cost,
    "reduce": tree_reduce_cost,
    "barrier": dissemination_barrier_cost,
}


def reduction(op: str) -> np.ufunc:
    """The elementwise function of a reduction's name. ValueError for a mean: that is a sum which somebody divides."""
    if op not in UFUNCS:
        raise ValueError(f"unknown reduction {op!r}: choose one of {', '.join(UFUNCS)}")
    return UFUNCS[op]


def _pieces(x: np.ndarray, count: int) -> list[np.ndarray]:
    """Views of `count` nearly equal pieces of `x`, one after the other."""
    if not x.flags.c_contiguous:
        raise ValueError(f"a collective needs a contiguous array, this one of shape {x.shape} is not")
    return np.array_split(x.reshape(-1), count)


def _received(group: ProcessGroup, like: np.ndarray, src: int) -> np.ndarray:
    return group.recv(np.empty_like(like), src)
