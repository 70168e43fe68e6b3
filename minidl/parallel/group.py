"""ProcessGroup: the ranks that communicate with one another, and the collectives they can call.

The public methods are the same whatever carries the bytes. An engine (shared memory, MPI) writes each collective
as a generator that yields while it must wait for other ranks, so that the caller chooses between waiting for it and
going on with other work in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import numpy as np

from minidl.creation import shape_of
from minidl.kernels import for_device
from minidl.parallel.collective_arguments import (
    check_array,
    check_out,
    check_overlap,
    check_reduction,
    check_rows,
    given_sizes,
    row_elements,
    split_sizes,
)
from minidl.parallel.handle import Handle, Steps, as_given
from minidl.tensor import Tensor

SAME = object()  # a result is of the kind that was brought


class ProcessGroup(ABC):
    """`size` ranks, of which this one is `rank`.

    A collective must be called by every rank of the group, in the same order; messages from one rank to another arrive
    in the order in which they were sent. Tensors and plain arrays of the device are taken alike, and the same kind is
    returned. With `async_op=True` a method returns a Handle at once.

    shares_memory: all ranks see the same memory, so that `one_copy` is enough for what they have alike.
    on_collective: is told the Handle of each collective that has finished. on_wait: of each that was waited for.
    """

    shares_memory = False

    def __init__(self, rank: int, size: int, axes: tuple[str, ...] = ()):
        self.rank, self.size, self.axes = rank, size, axes
        self.on_collective: Callable[[Handle], None] | None = None
        self.on_wait: Callable[[Handle], None] | None = None
        self.matched = 0.0  # when all ranks of the collective that advanced last had come
        self._pending: defaultdict[tuple, deque[Handle]] = defaultdict(deque)  # what must run in order -> its handles
        self.in_flight = 0  # handles that are pending

    def __str__(self) -> str:
        """As a plan says it: "tensor=2"."""
        return in_words(self.axes, self.size)

    # What an engine must write

    @abstractmethod
    def _steps(self, name: str, x, *arguments) -> Steps:
        """Carry out the collective `name` on the array `x`; returns None or `x` itself where that was changed.

        arguments: (op,) for all_reduce, (op, out) for reduce_scatter, (sizes, out) for all_gather, (dst, sizes) for
        gather, (op, dst) for reduce, (src,) for broadcast, scatter and recv, (dst,) for send, (output_split_sizes,
        input_split_sizes) for all_to_all. Where `out` is not None it takes the result and is returned; sizes that are
        None are the same for all ranks.
        """

    @abstractmethod
    def pause(self) -> None:
        """Give way to other processes for a moment, then bring on what is pending here; raises if the run is over."""

    # Public

    def all_reduce(self, x, op: str = "sum", async_op: bool = False):
        """Every rank's `x` becomes the reduction of all ranks' `x`, in place, the same bits everywhere.

        op: "sum", "mean" (of floating-point numbers: the sum, divided by the number of ranks), "max" or "min".
        """
        check_reduction("all_reduce", op, x)
        return self._run("all_reduce", x, op, async_op=async_op)

    def reduce(self, x, dst: int = 0, op: str = "sum", async_op: bool = False):
        """`x` of rank `dst` becomes the reduction, in place; the others' stay as they are."""
        check_reduction("reduce", op, x)
        return self._run("reduce", x, op, self._member(dst), async_op=async_op)

    def reduce_scatter(self, x, op: str = "sum", out=None, async_op: bool = False):
        """This rank's part, along dimension 0, of the reduction of all ranks' `x`: in `out`, or as a new tensor.

        Where the ranks do not divide dimension 0, the first of them get one row more, as `np.array_split` cuts. `out`
        may be that very part of `x`; elsewhere the two must not overlap.
        """
        check_reduction("reduce_scatter", op, x)
        check_rows("reduce_scatter", x, self.size)
        if out is not None:
            sizes = split_sizes(x.shape[0], self.size)
            check_out("reduce_scatter", out, (sizes[self.rank], *x.shape[1:]), x)
            check_overlap("reduce_scatter", x, out, sum(sizes[: self.rank]))
        return self._run("reduce_scatter", x, op, _array(out), async_op=async_op, given=x if out is None else out)

    def all_gather(self, x, out=None, sizes: Sequence[int] | None = None, async_op: bool = False):
        """The ranks' `x`, joined along dimension 0 in rank order: in `out`, or as a new tensor.

        sizes: the length of each rank's `x` along dimension 0, the same on all ranks; needed where they differ. `x` may
        be this rank's part of `out`; elsewhere the two must not overlap.
        """
        sizes, rows = self._sizes("all_gather", x, sizes)
        if out is not None:
            check_out("all_gather", out, (rows, *x.shape[1:]), x)
            check_overlap("all_gather", out, x, self.rank * x.shape[0] if sizes is None else sum(sizes[: self.rank]))
        given = x if out is None else out
        return self._run("all_gather", x, sizes, _array(out), async_op=async_op, given=given, rows=rows)

    def all_to_all(
        self,
        x,
        output_split_sizes: Sequence[int] | None = None,
        input_split_sizes: Sequence[int] | None = None,
        async_op: bool = False,
    ):
        """A new tensor: part `rank`, along dimension 0, of every rank's `x`, joined in rank order.

        input_split_sizes: the rows of `x` that go to each rank. output_split_sizes: the rows that come from each rank,
        which must be as many as that sends. Both are given, by all ranks, or none: then the ranks' `x` have one shape
        and are cut as `np.array_split` cuts them.
        """
        check_rows("all_to_all", x, self.size)
        if (output_split_sizes is None) != (input_split_sizes is None):
            raise ValueError("all_to_all needs both output_split_sizes and input_split_sizes, or neither")
        if input_split_sizes is None:
            rows = self.size * split_sizes(x.shape[0], self.size)[self.rank]
        else:
            output_split_sizes = given_sizes("all_to_all", "output_split_sizes", output_split_sizes, self.size)
            input_split_sizes = given_sizes("all_to_all", "input_split_sizes", input_split_sizes, self.size)
            if sum(input_split_sizes) != x.shape[0]:
                raise ValueError(
                    f"all_to_all needs input_split_sizes that add up to the {x.shape[0]} rows of x, "
                    f"not {input_split_sizes}"
                )
            if input_split_sizes[self.rank] != output_split_sizes[self.rank]:
                raise ValueError(
                    f"all_to_all on rank {self.rank} cannot send itself {input_split_sizes[self.rank]} rows and "
                    f"get {output_split_sizes[self.rank]}"
                )
            rows = sum(output_split_sizes)
        return self._run("all_to_all", x, output_split_sizes, input_split_sizes, async_op=async_op, rows=rows)

    def broadcast(self, x, src: int = 0, async_op: bool = False):
        """Every rank's `x` becomes that of rank `src`, in place."""
        return self._run("broadcast", x, self._member(src), async_op=async_op)

    def send(self, x, dst: int, async_op: bool = False):
        """Hand a copy of `x` to rank `dst`. Returns when `x` may be changed, not when it has arrived."""
        return self._run("send", x, self._other(dst), async_op=async_op, order=("send", dst))

    def recv(self, x=None, src: int = 0, async_op: bool = False):
        """The next tensor that rank `src` sent: into `x`, or as a new one where `x` is None."""
        return self._run("recv", x, self._other(src), async_op=async_op, order=("recv", src))

    def gather(self, x, dst: int = 0, sizes: Sequence[int] | None = None, async_op: bool = False):
        """On rank `dst` the ranks' `x`, joined along dimension 0 in rank order; None on the others.

        sizes: as for all_gather.
        """
        sizes, rows = self._sizes("gather", x, sizes)
        given = x if self.rank == self._member(dst) else None
        return self._run("gather", x, dst, sizes, async_op=async_op, given=given, rows=rows)

    def scatter(self, x=None, src: int = 0, async_op: bool = False):
        """This rank's part, along dimension 0, of the `x` of rank `src`, as a new tensor; the others need give none.

        A rank that gives none gets a Tensor. Where the ranks do not divide dimension 0, the first of them get one row
        more, as `np.array_split` cuts.
        """
        if self._member(src) == self.rank or x is not None:
            check_rows("scatter", x, self.size)
        return self._run("scatter", x, src, async_op=async_op)

    def barrier(self, async_op: bool = False):
        """Returns when every rank has called it."""
        return self._run("barrier", None, async_op=async_op)

    def split(self, color: int, key: int | None = None) -> ProcessGroup:
        """The group of the ranks that gave the same `color`, ordered by `key` (by rank where it is None)."""
        raise NotImplementedError(f"{type(self).__name__} cannot be split")

    def empty(self, shape: int | tuple[int, ...], dtype="float32", device: str = "cpu") -> Tensor:
        """A tensor that this group's collectives use without copying it."""
        if device != "cpu":  # no engine moves its memory yet: a group of one rank
            return Tensor(for_device(device).empty(shape_of(shape), np.dtype(dtype)))
        return Tensor(self._allocate(shape_of(shape), np.dtype(dtype)))

    def one_copy(self, shape: int | tuple[int, ...], dtype="float32") -> Tensor:
        """Zeros in the same memory on all ranks, where they share memory; else a tensor of this rank's own.

        It is for what all ranks have alike: whoever writes sees to it that nobody reads. Every rank must call it.
        """
        tensor = self.empty(shape, dtype)
        tensor.kernels.fill(tensor.data, 0)
        return tensor

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def tell(self, instruction: str) -> None:
        """An instruction begins: it is named if the run fails or hangs in it."""
        raise NotImplementedError(f"{type(self).__name__} has nobody to tell")

    def report(self, message) -> None:
        """Hand `message` to the launcher's `on_report`."""
        raise NotImplementedError(f"{type(self).__name__} has no launcher to report to")

    def meanwhile(self, action: Callable[[], None]) -> None:
        """Have `action` called whenever this rank waits in any of its groups; it must not wait itself."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to wait for")

    def begins(self, step: int) -> bool:
        """Whether to begin `step`; if not, no rank of the run does. See `launch(stoppable=True)`."""
        raise NotImplementedError(f"{type(self).__name__} has no launcher that could stop it")

    # Running a collective

    def _run(self, name, x, *arguments, async_op=False, given=SAME, rows=None, order=()):
        """given: of which kind the result shall be, where that is not `x`. rows: of the result, if it is the larger."""
        if x is not None or name not in ("barrier", "recv", "scatter"):
            check_array(name, x)
        array, given = _array(x), x if given is SAME else given
        if not (async_op or self.in_flight or self.on_collective):
            return as_given(given, self._finish(self._steps(name, array, *arguments)))
        nbytes = 0 if array is None else array.nbytes
        if rows is not None:
            nbytes = max(nbytes, rows * row_elements(array) * array.dtype.itemsize)
        handle = Handle(self, name, given, nbytes, self._steps(name, array, *arguments), async_op)
        self._pending[order].append(handle)
        self.in_flight += 1
        self.progress()
        return handle if async_op else handle.wait()

    def _finish(self, steps: Steps):
        """Carry out a collective for which nobody needs a Handle; that saves about a microsecond."""
        while True:
            try:
                next(steps)
            except StopIteration as finished:
                return finished.value
            self.pause()

    def progress(self) -> None:
        """Bring the pending collectives on, in order, as far as they go without waiting."""
        for handles in self._pending.values():
            while handles and handles[0].advance():
                handles.popleft()
                self.in_flight -= 1

    def _member(self, rank: int) -> int:
        if not 0 <= rank < self.size:
            raise ValueError(f"rank {rank} is not in a group of {self.size} ranks")
        return rank

    def _other(self, rank: int) -> int:
        if self._member(rank) == self.rank:
            raise ValueError(f"rank {rank} cannot send to or receive from itself")
        return rank

    def _sizes(self, name: str, x, sizes: Sequence[int] | None) -> tuple[tuple[int, ...] | None, int]:
        """The checked rows of each rank's `x`, None where all have as many, and the rows of all."""
        check_rows(name, x, self.size)
        if sizes is None:
            return None, self.size * x.shape[0]
        sizes = given_sizes(name, "sizes", sizes, self.size)
        if sizes[self.rank] != x.shape[0]:
            raise ValueError(f"{name} on rank {self.rank} has {x.shape[0]} rows, not those of sizes {sizes}")
        return sizes, sum(sizes)


def in_words(axes: tuple, size: int) -> str:
    """Axes, and the ranks along them, as a plan says it."""
    named = " × ".join(map(str, axes)) or "ranks"
    return f"{named}={size}" if all(isinstance(axis, str) for axis in axes) else f"{size} ({named})"


def _array(x):
    return x.data if isinstance(x, Tensor) else x
