"""Tree: fewer steps than a ring, mostly more bytes; better for short messages. And a barrier."""

from __future__ import annotations

import numpy as np

from minidl.parallel.collectives.cost import Cost, pieces_of, received, reduction, rounds
from minidl.parallel.group import ProcessGroup


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
            ufunc(x, received(group, x, (group.rank + 2**k) % n), out=x)
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
        ufunc(x, received(group, x, rank + power), out=x)
    for k in range(rounds(power)):
        group.send(x, rank ^ 2**k)
        ufunc(x, received(group, x, rank ^ 2**k), out=x)
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
    pieces = pieces_of(x, n)
    for k in range(rounds(n)):
        count = min(2**k, n - 2**k)
        group.send(np.concatenate([pieces[(rank + i) % n] for i in range(count)]), (rank - 2**k) % n)
        new = [pieces[(rank + i) % n] for i in range(2**k, 2**k + count)]
        _unpack(received(group, np.concatenate(new), (rank + 2**k) % n), new)
    return x


def bruck_all_gather_cost(size: int, nbytes: float) -> Cost:
    return Cost(rounds(size), (size - 1) / size * nbytes)


def tree_gather(group: ProcessGroup, x: np.ndarray, dst: int = 0) -> np.ndarray:
    """Fill `x` of rank `dst`, of which every rank has piece number `rank`, with the pieces of the others. In place.

    The tree of `tree_broadcast`, from the leaves to `dst`: each rank hands on all the pieces of its branch at once, so
    `dst` gets no byte twice (Chan et al. 2007). On the others `x` is spoilt.

    E. Chan, M. Heimlich, A. Purkayastha and R. van de Geijn, "Collective communication: theory, practice, and
    experience", Concurrency and Computation 19(13), 2007.
    """
    n, place = group.size, (group.rank - dst) % group.size
    pieces = pieces_of(x, n)
    for k in range(rounds(n)):
        if place % 2 ** (k + 1) == 2**k:
            branch = _branch(pieces, group, place, k, dst)
            group.send(np.concatenate(branch), (group.rank - 2**k) % n)
            break
        if place + 2**k < n:
            branch = _branch(pieces, group, place + 2**k, k, dst)
            _unpack(received(group, np.concatenate(branch), (group.rank + 2**k) % n), branch)
    return x


def tree_gather_cost(size: int, nbytes: float) -> Cost:
    return Cost(rounds(size), (size - 1) / size * nbytes)


def tree_scatter(group: ProcessGroup, x: np.ndarray, src: int = 0) -> np.ndarray:
    """Piece number `rank` of the `x` of rank `src`: the messages of `tree_gather`, the other way round.

    On the other ranks `x` takes what is passed on.
    """
    n, place = group.size, (group.rank - src) % group.size
    pieces = pieces_of(x, n)
    for k in reversed(range(rounds(n))):
        if place % 2 ** (k + 1) == 2**k:
            branch = _branch(pieces, group, place, k, src)
            _unpack(received(group, np.concatenate(branch), (group.rank - 2**k) % n), branch)
        elif place % 2 ** (k + 1) == 0 and place + 2**k < n:
            branch = _branch(pieces, group, place + 2**k, k, src)
            group.send(np.concatenate(branch), (group.rank + 2**k) % n)
    return pieces[group.rank]


tree_scatter_cost = tree_gather_cost  # the same tree, the other way round


def _branch(pieces: list[np.ndarray], group: ProcessGroup, place: int, k: int, root: int) -> list[np.ndarray]:
    """The pieces of the at most 2^k ranks from `place` on, counted from `root`."""
    return [pieces[(p + root) % group.size] for p in range(place, min(place + 2**k, group.size))]


def _unpack(message: np.ndarray, pieces: list[np.ndarray]) -> None:
    """Fill `pieces` with what lies in `message` one after the other."""
    ends = np.cumsum([piece.size for piece in pieces])
    for piece, end in zip(pieces, ends, strict=True):
        piece[...] = message[end - piece.size : end]


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
