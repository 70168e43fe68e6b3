"""A process group whose ranks were started by mpiexec or srun and communicate through MPI, also between machines.

Every call is a nonblocking one that is asked again and again whether it is done, so that a rank which waits goes on
with what else is pending. Before a collective all ranks meet in a small all-reduce of what they call: it tells when all
had come, and ranks that disagree from ranks that are late. Only mpi_launch imports this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from mpi4py import MPI

from minidl.parallel.collective_arguments import REDUCTIONS, check_splits, finish, row_elements, split_sizes
from minidl.parallel.group import ProcessGroup
from minidl.parallel.handle import Steps
from minidl.parallel.runtime.announcements import Call, described, digest, with_sizes
from minidl.parallel.runtime.channel import HEADER, header, read_header

if TYPE_CHECKING:
    from minidl.parallel.runtime.mpi_launch import MpiProcess

OPERATIONS = {"sum": MPI.SUM, "mean": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
REDUCED_BY_MPI = "bhilqBHILQfd"  # dtype.char of what every MPI can reduce by all; others are gathered
HEADER_BYTES = 8 * HEADER
TEXT_BYTES = 128


class MpiGroup(ProcessGroup):
    """The ranks of a communicator, which is this group's own. name: for errors."""

    def __init__(self, process: MpiProcess, comm: MPI.Comm, name: str = "world"):
        super().__init__(comm.rank, comm.size)
        self.process, self.comm, self.name = process, comm, name
        self._come: dict[int, np.ndarray] = {}  # from each rank a message that has come and is not taken yet
        process.groups.append(self)

    def pause(self) -> None:
        self.process.pause()

    def tell(self, instruction: str) -> None:
        self.process.begun += 1
        self.process.doing = instruction

    def report(self, message) -> None:
        self.process.report(message)

    def meanwhile(self, action: Callable[[], None]) -> None:
        self.process.meanwhile = action

    def begins(self, step: int) -> bool:
        """What the ranks wanted as they began the step before decides: so nobody waits for the slowest here."""
        process = self.process
        process.take_reports()
        if self.agreed_to_stop():
            return False
        process.steps_begun += 1
        wanted = np.array([process.wants_stop], np.int32)
        process.agreement = process.comm.Iallreduce(MPI.IN_PLACE, wanted, MPI.MAX), wanted
        return True

    def agreed_to_stop(self) -> bool:
        """Whether a rank wanted to stop when all began the step before; all ranks ask, or none."""
        if self.process.agreement is None:
            return False
        (request, wanted), self.process.agreement = self.process.agreement, None
        self._finish(_done(request))
        return bool(wanted[0])

    def split(self, color: int, key: int | None = None) -> MpiGroup:
        everyone = self.all_gather(np.array([[color, self.rank if key is None else key, self.rank]])).tolist()
        members = sorted((k, rank) for c, k, rank in everyone if c == color)
        place = [rank for _, rank in members].index(self.rank)
        number = sorted({c for c, _, _ in everyone}).index(color)  # MPI takes small ones only, none below 0
        return MpiGroup(self.process, self.comm.Split(number, place), f"color {color}")

    def exchange(self, content: bytes) -> list[bytes]:
        """Every rank's content, in rank order."""
        sizes = self.all_gather(np.array([len(content)])).tolist()
        whole = self.all_gather(np.frombuffer(content, np.uint8), sizes=sizes)
        return [part.tobytes() for part in np.split(whole, np.cumsum(sizes)[:-1])]

    def _steps(self, name, x, *arguments) -> Steps:
        self.process.begun += 1
        return COLLECTIVES[name](self, x, *arguments)

    # Collectives

    def _meet(self, name: str, options: str = "", shape: tuple | None = None, char: str = "") -> Steps:
        """Wait until every rank has come to the same call. RuntimeError, of two ranks that differ, if it is another."""
        text, number = _description((name, options, shape, char))
        extremes = np.array([number, -number])
        yield from _done(self.comm.Iallreduce(MPI.IN_PLACE, extremes, MPI.MAX))
        self.matched = time.perf_counter()
        if extremes[0] != -extremes[1]:
            texts = yield from self._gathered(np.frombuffer(text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES), np.uint8))
            calls = [row.tobytes().decode(errors="replace").rstrip() for row in texts]
            other = next(rank for rank, call in enumerate(calls) if call != calls[self.rank])
            raise RuntimeError(
                f"ranks of the group {self.name!r} disagree: rank {self.rank} calls {calls[self.rank]}, "
                f"rank {other} calls {calls[other]}"
            )

    def _gathered(self, x: np.ndarray) -> Steps:
        """Every rank's contiguous `x`, flat, a row each."""
        rows = np.empty((self.size, x.size), x.dtype)
        yield from _done(self.comm.Iallgather(_as_bytes(x), _as_bytes(rows)))
        return rows

    def _reduced(self, x: np.ndarray, op: str) -> Steps:
        """The reduction, flat, of what MPI cannot reduce itself: in rank order."""
        first, *others = yield from self._gathered(x)
        for row in others:
            REDUCTIONS[op](first, row, out=first)
        return first

    def _barrier(self, x: None) -> Steps:
        yield from self._meet("barrier")

    def _all_reduce(self, x: np.ndarray, op: str) -> Steps:
        """MPI requires of itself the same bits on all ranks."""
        yield from self._meet("all_reduce", op, x.shape, x.dtype.char)
        whole = _contiguous(x)
        if x.dtype.char in REDUCED_BY_MPI:
            yield from _done(self.comm.Iallreduce(MPI.IN_PLACE, whole, OPERATIONS[op]))
        else:
            whole = (yield from self._reduced(whole, op)).reshape(x.shape)
        finish(op, whole, self.size)
        if whole is not x:
            np.copyto(x, whole)
        return x

    def _reduce(self, x: np.ndarray, op: str, dst: int) -> Steps:
        yield from self._meet("reduce", f"{op}, dst={dst}", x.shape, x.dtype.char)
        whole, total = _contiguous(x), None
        if x.dtype.char not in REDUCED_BY_MPI:
            total = yield from self._reduced(whole, op)
        elif self.rank == dst:
            total = np.empty_like(whole)
            yield from _done(self.comm.Ireduce(whole, total, OPERATIONS[op], dst))
        else:
            yield from _done(self.comm.Ireduce(whole, None, OPERATIONS[op], dst))
        if self.rank == dst:
            finish(op, total, self.size)
            np.copyto(x, total.reshape(x.shape))
        return x

    def _reduce_scatter(self, x: np.ndarray, op: str, out: np.ndarray | None) -> Steps:
        yield from self._meet("reduce_scatter", op, x.shape, x.dtype.char)
        sizes, width, whole = split_sizes(x.shape[0], self.size), row_elements(x), _contiguous(x)
        own = np.empty((sizes[self.rank], *x.shape[1:]), x.dtype)
        if x.dtype.char in REDUCED_BY_MPI:
            target = own if out is None or np.may_share_memory(out, whole) else out
            counts = [rows * width for rows in sizes]
            yield from _done(self.comm.Ireduce_scatter(whole, target, counts, OPERATIONS[op]))
        else:
            total, start = (yield from self._reduced(whole, op)), sum(sizes[: self.rank]) * width
            target = total[start : start + own.size].reshape(own.shape)
        finish(op, target, self.size)
        if out is None or out is target:
            return target
        np.copyto(out, target)
        return out

    def _all_gather(self, x: np.ndarray, sizes: tuple[int, ...] | None, out: np.ndarray | None) -> Steps:
        options, shape = with_sizes("", sizes, x.shape)
        yield from self._meet("all_gather", options, shape, x.dtype.char)
        sizes = sizes or (x.shape[0],) * self.size
        if out is None:
            out = np.empty((sum(sizes), *x.shape[1:]), x.dtype)
        own = MPI.IN_PLACE if np.may_share_memory(x, out) else _as_bytes(_contiguous(x))
        yield from _done(self.comm.Iallgatherv(own, _parts(out, sizes)))
        return out

    def _gather(self, x: np.ndarray, dst: int, sizes: tuple[int, ...] | None) -> Steps:
        options, shape = with_sizes(f"dst={dst}", sizes, x.shape)
        yield from self._meet("gather", options, shape, x.dtype.char)
        sizes, out = sizes or (x.shape[0],) * self.size, None
        if self.rank == dst:
            out = np.empty((sum(sizes), *x.shape[1:]), x.dtype)
        parts = None if out is None else _parts(out, sizes)
        yield from _done(self.comm.Igatherv(_as_bytes(_contiguous(x)), parts, dst))
        return out

    def _scatter(self, x: np.ndarray | None, src: int) -> Steps:
        """Only `src` knows the shape: it tells the others first."""
        words, parts = np.zeros(HEADER, np.int64), None
        if self.rank == src:
            described = header("scatter", x)
            words[: len(described)] = described
        yield from self._meet("scatter", f"src={src}")
        yield from _done(self.comm.Ibcast(words, src))
        dtype, shape = read_header(words.tolist())
        sizes = split_sizes(shape[0], self.size)
        own = np.empty((sizes[self.rank], *shape[1:]), dtype)
        if self.rank == src:
            parts = _parts(_contiguous(x), sizes)
        yield from _done(self.comm.Iscatterv(parts, _as_bytes(own), src))
        return own

    def _all_to_all(self, x: np.ndarray, received: tuple[int, ...] | None, sent: tuple[int, ...] | None) -> Steps:
        """Where ranks divide their rows each in its own way, all compare the sizes of all first."""
        if sent is None:
            yield from self._meet("all_to_all", "", x.shape, x.dtype.char)
            sent = split_sizes(x.shape[0], self.size)
            received = (sent[self.rank],) * self.size
        else:
            yield from self._meet("all_to_all", "split sizes", (-1, *x.shape[1:]), x.dtype.char)
            tables = (yield from self._gathered(np.array([*sent, *received]))).tolist()
            all_sent, all_received = zip(*((table[: self.size], table[self.size :]) for table in tables), strict=True)
            check_splits("all_to_all", self.name, all_sent, all_received)
        out = np.empty((sum(received), *x.shape[1:]), x.dtype)
        yield from _done(self.comm.Ialltoallv(_parts(_contiguous(x), sent), _parts(out, received)))
        return out

    def _broadcast(self, x: np.ndarray, src: int) -> Steps:
        yield from self._meet("broadcast", f"src={src}", x.shape, x.dtype.char)
        whole = _contiguous(x)
        yield from _done(self.comm.Ibcast(_as_bytes(whole), src))
        if whole is not x and self.rank != src:
            np.copyto(x, whole)
        return x

    # Point to point: a message is its dtype and shape, then its data

    def _send(self, x: np.ndarray, dst: int) -> Steps:
        described = header("send", x)
        message = np.empty(HEADER_BYTES + x.nbytes, np.uint8)
        message[:HEADER_BYTES].view(np.int64)[: len(described)] = described
        np.copyto(message[HEADER_BYTES:].view(x.dtype).reshape(x.shape), x)
        self.process.send(self.comm, message, dst)
        self.matched = time.perf_counter()
        return
        yield  # makes this a generator; it never waits

    def _recv(self, x: np.ndarray | None, src: int) -> Steps:
        if src not in self._come:
            status = MPI.Status()
            while (found := self.comm.Improbe(src, status=status)) is None:
                yield
            message = np.empty(status.Get_count(MPI.BYTE), np.uint8)
            yield from _done(found.Irecv(message))
            self._come[src] = message
        self.matched = time.perf_counter()
        dtype, shape = read_header(self._come[src][:HEADER_BYTES].view(np.int64).tolist())
        got = self._come[src][HEADER_BYTES:].view(dtype).reshape(shape)
        if x is None:
            x = got
        elif x.shape != got.shape or x.dtype != got.dtype:
            raise ValueError(f"received shape {got.shape} of {got.dtype} for a tensor {x.shape} of {x.dtype}")
        else:
            np.copyto(x, got)
        del self._come[src]
        return x


COLLECTIVES = {
    "barrier": MpiGroup._barrier,
    "all_reduce": MpiGroup._all_reduce,
    "reduce": MpiGroup._reduce,
    "reduce_scatter": MpiGroup._reduce_scatter,
    "all_gather": MpiGroup._all_gather,
    "gather": MpiGroup._gather,
    "scatter": MpiGroup._scatter,
    "all_to_all": MpiGroup._all_to_all,
    "broadcast": MpiGroup._broadcast,
    "send": MpiGroup._send,
    "recv": MpiGroup._recv,
}


def _done(request: MPI.Request) -> Steps:
    while not request.Test():
        yield


@lru_cache(1024)
def _description(call: Call) -> tuple[str, int]:
    """What is called, in words, and a number for it."""
    text = described(call)
    return text, digest(text.encode())


def _contiguous(x: np.ndarray) -> np.ndarray:
    """`x`, or a copy of it where it does not lie in one piece."""
    return x if x.flags.c_contiguous else x.copy()


def _parts(x: np.ndarray, sizes: tuple[int, ...]) -> list:
    """The rows of `x` as MPI takes unequal parts of it: `sizes` rows for each rank, one after the other."""
    row_bytes = row_elements(x) * x.dtype.itemsize
    return [_as_bytes(x), [rows * row_bytes for rows in sizes], None, MPI.BYTE]


def _as_bytes(x: np.ndarray) -> np.ndarray:
    """The same memory, which must lie in one piece, as bytes."""
    return x.reshape(-1).view(np.uint8)
