"""A process group whose ranks are processes of one machine: its collectives read and write the others' rows."""

from __future__ import annotations

import math
import time

import numpy as np

from minidl.creation import shape_of
from minidl.kernels.cpu import fast
from minidl.parallel.collective_arguments import REDUCTIONS, check_splits, finish, row_elements, split_sizes
from minidl.parallel.handle import Steps
from minidl.parallel.runtime.announcements import NUMBER_BITS, with_sizes
from minidl.parallel.runtime.channel import HEADER, header, read_header
from minidl.parallel.runtime.meeting_group import MeetingGroup
from minidl.parallel.shares import share_elements
from minidl.tensor import Tensor

BLOCK = 65536  # elements summed at a time: two float32 blocks fit in a 1 MiB cache


class SharedMemoryGroup(MeetingGroup):
    """What every rank brings lies in its row of the arena, or is copied there."""

    shares_memory = True

    def _steps(self, name, x, *arguments) -> Steps:
        return COLLECTIVES[name](self, x, *arguments)

    def one_copy(self, shape, dtype="float32"):
        """In the row of the first rank, which keeps it for all as long as it has the tensor."""
        place = np.zeros(1, np.int64)
        if self.rank == 0:
            own = super().one_copy(shape, dtype)
            place[0] = self.process.offset_of(own.data)
        (offset,) = self.broadcast(place).tolist()
        if self.rank == 0:
            return own
        return Tensor(self.arena.lend(self.members[0], offset, shape_of(shape), dtype, lambda _: None))

    def _share(self, size: int) -> tuple[int, int]:
        """The elements of a flat array that this rank reduces: whole cache lines where it can be."""
        step = share_elements(size, self.size)
        return min(self.rank * step, size), min((self.rank + 1) * step, size)

    def _barrier(self, x: None) -> Steps:
        yield from self._arrive(0, "barrier")

    def _all_reduce(self, x: np.ndarray, op: str) -> Steps:
        """Each rank reduces its share of all rows, in rank order, and writes it to all rows."""
        shared, offset = self._in_row(x)
        announced = yield from self._arrive(offset, "all_reduce", op, x.shape, x.dtype.char)
        rows = self._views(announced, *self._share(x.size), x.dtype)
        for start in range(0, rows[0].size, BLOCK):
            first, *others = (row[start : start + BLOCK] for row in rows)
            for row in others[:-1]:
                REDUCTIONS[op](first, row, out=first)
            for row in others[-1:]:
                _reduce_both(first, row, op, self.size)
            for row in others[:-1]:
                row[...] = first
        yield from self._leave("all_reduce")
        if shared is not x:
            np.copyto(x, shared)
        return x

    def _reduce(self, x: np.ndarray, op: str, dst: int) -> Steps:
        shared, offset = self._in_row(x)
        announced = yield from self._arrive(offset, "reduce", f"{op}, dst={dst}", x.shape, x.dtype.char)
        if self.rank == dst:
            first, *others = self._views(announced, 0, x.size, x.dtype)
            total = first.copy()
            for row in others:
                REDUCTIONS[op](total, row, out=total)
            finish(op, total, self.size)
            np.copyto(x, total.reshape(x.shape))
        yield from self._leave("reduce")
        return x

    def _reduce_scatter(self, x: np.ndarray, op: str, out: np.ndarray | None) -> Steps:
        """Each rank reduces its part of all rows, its own first: that is where `out` may lie."""
        shared, offset = self._in_row(x)
        announced = yield from self._arrive(offset, "reduce_scatter", op, x.shape, x.dtype.char)
        sizes = split_sizes(x.shape[0], self.size)
        if out is None:
            out = np.empty((sizes[self.rank], *x.shape[1:]), x.dtype)
        first = sum(sizes[: self.rank]) * row_elements(x)
        rows = self._views(announced, first, first + out.size, x.dtype)
        own, *others = rows[self.rank :] + rows[: self.rank]
        total = out.reshape(-1)
        if not others:
            np.copyto(total, own)
        for start in range(0, out.size, BLOCK):
            block = slice(start, start + BLOCK)
            so_far = own[block]
            for row in others:
                so_far = REDUCTIONS[op](so_far, row[block], out=total[block])
            finish(op, total[block], self.size)
        yield from self._leave("reduce_scatter")
        return out

    def _all_gather(self, x: np.ndarray, sizes: tuple[int, ...] | None, out: np.ndarray | None) -> Steps:
        shared, offset = self._in_row(x)
        options, shape = with_sizes("", sizes, x.shape)
        announced = yield from self._arrive(offset, "all_gather", options, shape, x.dtype.char)
        out = self._joined(x, announced, sizes, out)
        yield from self._leave("all_gather")
        return out

    def _gather(self, x: np.ndarray, dst: int, sizes: tuple[int, ...] | None) -> Steps:
        shared, offset = self._in_row(x)
        options, shape = with_sizes(f"dst={dst}", sizes, x.shape)
        announced = yield from self._arrive(offset, "gather", options, shape, x.dtype.char)
        out = self._joined(x, announced, sizes) if self.rank == dst else None
        yield from self._leave("gather")
        return out

    def _joined(
        self, x: np.ndarray, announced: tuple[int, ...], sizes: tuple[int, ...] | None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The rows of all ranks, `sizes` of them or each as many as `x` has, in `out` or as a new array."""
        if sizes is None:
            length, parts = self.size * x.shape[0], self._views(announced, 0, x.size, x.dtype)
        else:
            length, width = sum(sizes), row_elements(x)
            parts = [self._view(r, announced[r] >> NUMBER_BITS, 0, n * width, x.dtype) for r, n in enumerate(sizes)]
        if out is None:
            out = np.empty((length, *x.shape[1:]), x.dtype)
        flat, start = out.reshape(-1), 0
        for part in parts:
            place = flat[start : start + part.size]
            if not np.may_share_memory(place, part):
                np.copyto(place, part)
            start += part.size
        return out

    def _scatter(self, x: np.ndarray | None, src: int) -> Steps:
        """Only `src` knows the shape: it writes a table of it, which the others read with their part."""
        place = 0
        if self.rank == src:
            described = header("scatter", x)
            shared, offset = self._in_row(x)
            place = self._write_table(offset, *described)
        announced = yield from self._arrive(place, "scatter", f"src={src}")
        offset, *described = self._read_table(src, announced, HEADER)
        dtype, (length, *shape) = read_header(described)
        sizes, width = split_sizes(length, self.size), math.prod(shape)
        start, rows = sum(sizes[: self.rank]) * width, sizes[self.rank]
        own = self._view(src, offset, start, start + rows * width, dtype).reshape(rows, *shape).copy()
        yield from self._leave("scatter")
        return own

    def _all_to_all(self, x: np.ndarray, received: tuple[int, ...] | None, sent: tuple[int, ...] | None) -> Steps:
        """Each rank copies its own part out of every row.

        Where ranks divide their rows each in its own way, they write both sizes in tables, and compare those of all.
        """
        shared, offset = self._in_row(x)
        if sent is None:
            announced = yield from self._arrive(offset, "all_to_all", "", x.shape, x.dtype.char)
            all_sent = [split_sizes(x.shape[0], self.size)] * self.size
            offsets = [word >> NUMBER_BITS for word in announced]
        else:
            place, shape = self._write_table(offset, *sent, *received), (-1, *x.shape[1:])
            announced = yield from self._arrive(place, "all_to_all", "split sizes", shape, x.dtype.char)
            tables = [self._read_table(rank, announced, 1 + 2 * self.size) for rank in range(self.size)]
            offsets, all_sent = [table[0] for table in tables], [table[1 : 1 + self.size] for table in tables]
            try:
                check_splits("all_to_all", self.name, all_sent, [table[1 + self.size :] for table in tables])
            except RuntimeError:
                yield from self._leave("all_to_all")  # not before all have seen the tables
                raise
        width, parts = row_elements(x), []
        for rank, sizes in enumerate(all_sent):
            start = sum(sizes[: self.rank]) * width
            parts.append(self._view(rank, offsets[rank], start, start + sizes[self.rank] * width, x.dtype))
        joined = np.concatenate(parts).reshape(sum(sizes[self.rank] for sizes in all_sent), *x.shape[1:])
        yield from self._leave("all_to_all")
        return joined

    def _broadcast(self, x: np.ndarray, src: int) -> Steps:
        shared, offset = self._in_row(x)
        announced = yield from self._arrive(offset, "broadcast", f"src={src}", x.shape, x.dtype.char)
        if self.rank != src:
            np.copyto(x, self._views(announced, 0, x.size, x.dtype)[src].reshape(x.shape))
        yield from self._leave("broadcast")
        return x

    # Point to point

    def _send(self, x: np.ndarray, dst: int) -> Steps:
        self.status.tell_call("send")
        channel = self._channel(self.rank, dst)
        yield from self._reached(dst, *channel.room(), "send")
        self.matched = time.perf_counter()
        channel.put(x)

    def _recv(self, x: np.ndarray | None, src: int) -> Steps:
        self.status.tell_call("recv")
        channel = self._channel(src, self.rank)
        yield from self._reached(src, *channel.message(), "recv")
        self.matched = time.perf_counter()
        return channel.get(x)


def _reduce_both(a: np.ndarray, b: np.ndarray, op: str, size: int) -> None:
    """Both become their reduction. Compiled, a sum reads and writes each of them once, in half the time."""
    if op == "sum" and fast.use_compiled(a):
        fast.elementwise.add_both(a, b)
    else:
        REDUCTIONS[op](a, b, out=a)
        finish(op, a, size)
        b[...] = a


COLLECTIVES = {
    "barrier": SharedMemoryGroup._barrier,
    "all_reduce": SharedMemoryGroup._all_reduce,
    "reduce": SharedMemoryGroup._reduce,
    "reduce_scatter": SharedMemoryGroup._reduce_scatter,
    "all_gather": SharedMemoryGroup._all_gather,
    "gather": SharedMemoryGroup._gather,
    "scatter": SharedMemoryGroup._scatter,
    "all_to_all": SharedMemoryGroup._all_to_all,
    "broadcast": SharedMemoryGroup._broadcast,
    "send": SharedMemoryGroup._send,
    "recv": SharedMemoryGroup._recv,
}
