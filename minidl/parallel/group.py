"""ProcessGroup: the ranks that communicate with one another, and the collectives they can call.

The public methods are the same whatever carries the bytes. An engine (shared memory, later MPI) writes one generator
for each collective: it yields while it must wait for other ranks, so that the caller chooses between waiting for it and
going on with other work in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from minidl.kernels import meta
from minidl.tensor import Tensor

REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}
Steps = Generator[None, None, object]  # yields while waiting; returns the collective's result


@dataclass(frozen=True, slots=True)
class CollectiveCall:
    """One collective, as a profile and a trace name it. nbytes: the whole tensor's, before or after, the larger."""

    name: str
    axis: str
    size: int
    nbytes: int


class Handle:
    """A collective under way. `wait()` gives its result; `poll()` brings it on as far as it goes without waiting."""

    def __init__(self, group: ProcessGroup, call: CollectiveCall, steps: Steps):
        self.group, self.call, self.steps = group, call, steps
        self.began = time.perf_counter()
        self.done, self.result = False, None

    def poll(self) -> bool:
        """True once the collective is finished."""
        if not self.done:
            self.group.progress()
        return self.done

    def wait(self):
        while not self.poll():
            self.group.pause()
        return self.result


class ProcessGroup:
    """`size` ranks, of which this one is `rank`.

    A collective must be called by every rank of the group, in the same order. Tensors and plain arrays of the device
    are taken alike, and the same kind is returned. With `async_op=True` a method returns a Handle at once.
    """

    def __init__(self, rank: int, size: int, axis: str = "world"):
        self.rank, self.size, self.axis = rank, size, axis
        self.matched = 0.0  # when all ranks of the last collective had arrived (time.perf_counter)
        self.on_collective: Callable[[CollectiveCall, float, float], None] | None = None  # told: call, began, matched
        self._pending: deque[Handle] = deque()

    # What an engine must write. Arrays are contiguous.

    def _all_reduce(self, x: np.ndarray, ufunc: np.ufunc) -> Steps: ...
    def _reduce(self, x: np.ndarray, ufunc: np.ufunc, dst: int) -> Steps: ...
    def _reduce_scatter(self, x: np.ndarray, ufunc: np.ufunc) -> Steps: ...
    def _all_gather(self, x: np.ndarray) -> Steps: ...
    def _all_to_all(self, x: np.ndarray) -> Steps: ...
    def _broadcast(self, x: np.ndarray, src: int) -> Steps: ...
    def _barrier(self) -> Steps: ...
    def _send(self, x: np.ndarray, dst: int) -> Steps: ...
    def _recv(self, x: np.ndarray | None, src: int) -> Steps: ...
    def pause(self) -> None:
        """Give way to other processes for a moment; raises if the run was aborted."""

    # Public

    def all_reduce(self, x, op: str = "sum", async_op: bool = False):
        """Every rank's `x` becomes the reduction of all ranks' `x`, in place, the same bits everywhere."""
        return self._run("all_reduce", x, self._all_reduce, reduction(op), async_op=async_op)

    def reduce(self, x, dst: int = 0, op: str = "sum", async_op: bool = False):
        """`x` of rank `dst` becomes the reduction, in place; the others' stay as they are."""
        return self._run("reduce", x, self._reduce, reduction(op), self._member(dst), async_op=async_op)

    def reduce_scatter(self, x, op: str = "sum", async_op: bool = False):
        """A new tensor: this rank's 1/size, along dimension 0, of the reduction of all ranks' `x`."""
        self._check_divisible("reduce_scatter", x)
        return self._run("reduce_scatter", x, self._reduce_scatter, reduction(op), async_op=async_op)

    def all_gather(self, x, async_op: bool = False):
        """A new tensor: the ranks' `x`, joined along dimension 0 in rank order."""
        return self._run("all_gather", x, self._all_gather, async_op=async_op, factor=self.size)

    def all_to_all(self, x, async_op: bool = False):
        """A new tensor: slice `rank` along dimension 0 of every rank's `x`, joined in rank order."""
        self._check_divisible("all_to_all", x)
        return self._run("all_to_all", x, self._all_to_all, async_op=async_op)

    def broadcast(self, x, src: int = 0, async_op: bool = False):
        """Every rank's `x` becomes that of rank `src`, in place."""
        return self._run("broadcast", x, self._broadcast, self._member(src), async_op=async_op)

    def send(self, x, dst: int, async_op: bool = False):
        """Hand a copy of `x` to rank `dst`. Returns when `x` may be changed, not when it has arrived."""
        return self._run("send", x, self._send, self._other(dst), async_op=async_op)

    def recv(self, x=None, src: int = 0, async_op: bool = False):
        """The next tensor that rank `src` sent: into `x`, or as a new one where `x` is None."""
        return self._run("recv", x, self._recv, self._other(src), async_op=async_op)

    def gather(self, x, dst: int = 0):
        """On rank `dst` the ranks' `x`, joined along dimension 0 in rank order; None on the others."""
        self._member(dst)
        if self.rank != dst:
            self.send(x, dst)
            return None
        parts = [_array(x if r == dst else self.recv(src=r)) for r in range(self.size)]
        return _like(x, np.concatenate(parts))

    def scatter(self, x=None, src: int = 0):
        """This rank's 1/size, along dimension 0, of the `x` of rank `src`; the other ranks need give none."""
        self._member(src)
        if self.rank != src:
            return self.recv(src=src)
        self._check_divisible("scatter", x)
        parts = np.split(_array(x), self.size)
        for r in range(self.size):
            if r != src:
                self.send(_like(x, np.ascontiguousarray(parts[r])), r)
        return _like(x, parts[src].copy())

    def barrier(self, async_op: bool = False):
        """Returns when every rank has called it."""
        return self._run("barrier", None, lambda _: self._barrier(), async_op=async_op)

    def split(self, color: int, key: int | None = None) -> ProcessGroup:
        """The group of the ranks that gave the same `color`, ordered by `key` (by rank where it is None)."""
        raise NotImplementedError(f"{type(self).__name__} cannot be split")

    def empty(self, shape: tuple[int, ...], dtype="float32") -> Tensor:
        """A tensor that this group's collectives use without copying it."""
        return Tensor(np.empty(shape, dtype))

    # Running a collective

    def _run(self, name, x, start, *arguments, async_op=False, factor=1):
        array = x.data if isinstance(x, Tensor) else x
        call = CollectiveCall(name, self.axis, self.size, factor * array.nbytes if array is not None else 0)
        steps = start(array, *arguments)
        as_tensor = isinstance(x, Tensor) or (x is None and name == "recv")
        handle = Handle(self, call, _finish(steps, x, array, as_tensor))
        self._pending.append(handle)
        self.progress()
        return handle if async_op else handle.wait()

    def progress(self) -> None:
        """Bring the pending collectives on, in order, as far as they go without waiting."""
        while self._pending:
            handle = self._pending[0]
            try:
                next(handle.steps)
                return
            except StopIteration as finished:
                self._pending.popleft()
                handle.result, handle.done = finished.value, True
                if self.on_collective is not None:
                    self.on_collective(handle.call, handle.began, self.matched)

    def _member(self, rank: int) -> int:
        if not 0 <= rank < self.size:
            raise ValueError(f"rank {rank} is not in a group of {self.size} ranks")
        return rank

    def _other(self, rank: int) -> int:
        if self._member(rank) == self.rank:
            raise ValueError(f"rank {rank} cannot send to or receive from itself")
        return rank

    def _check_divisible(self, name, x) -> None:
        if not x.shape or x.shape[0] % self.size:
            raise ValueError(f"{name} over {self.size} ranks cannot divide dimension 0 of a tensor of shape {x.shape}")


class MetaGroup(ProcessGroup):
    """A group that communicates nothing: it gives the result's shape and records the call in the profile."""

    def _run(self, name, x, start, *arguments, async_op=False, factor=1):
        array = x.data if isinstance(x, Tensor) else x
        nbytes = factor * array.nbytes if array is not None else 0
        if self.size > 1:
            meta.note(CollectiveCall(name, self.axis, self.size, nbytes))
        if array is not None and name in ("all_gather", "reduce_scatter"):
            rows = array.shape[0] * self.size if name == "all_gather" else array.shape[0] // self.size
            array = meta.MetaArray((rows, *array.shape[1:]), array.dtype)
        result = _like(x, array)
        if async_op:
            handle = Handle(self, None, iter(()))
            handle.done, handle.result = True, result
            return handle
        return result


def _finish(steps: Steps, x, array, as_tensor: bool) -> Steps:
    """The steps, then the result as the caller gave it: a Tensor for a Tensor, `x` itself where it was changed."""
    result = yield from steps
    if result is None or result is array:
        return x
    return Tensor(result) if as_tensor else result


def _array(x):
    return x.data if isinstance(x, Tensor) else x


def _like(x, array):
    return Tensor(array) if isinstance(x, Tensor) else array


def reduction(op: str) -> np.ufunc:
    """The elementwise function of a reduction's name. ValueError for an unknown one."""
    if op not in REDUCTIONS:
        raise ValueError(f"unknown reduction {op!r}: choose one of {', '.join(REDUCTIONS)}")
    return REDUCTIONS[op]
