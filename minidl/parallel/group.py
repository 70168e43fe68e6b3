"""ProcessGroup: the ranks that communicate with one another, and the collectives they can call.

The public methods are the same whatever carries the bytes. An engine (shared memory, MPI) writes each collective
as a generator that yields while it must wait for other ranks, so that the caller chooses between waiting for it and
going on with other work in between.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from minidl.creation import shape_of
from minidl.kernels import for_device, meta
from minidl.kernels.meta import MetaArray
from minidl.tensor import Tensor

REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}
Steps = Generator[None, None, object]  # yields while waiting; returns the collective's result


@dataclass(frozen=True, slots=True)
class CollectiveCall:
    """One collective of the ranks along `axes`. nbytes: the whole tensor's, before or after, the larger."""

    name: str
    axes: tuple[str, ...]
    size: int
    nbytes: int


class Handle:
    """A collective under way. `wait()` gives its result; `poll()` brings it on as far as it goes without waiting.

    Both raise what went wrong in it. began, matched: when it was called, and when all of its ranks had come
    (time.perf_counter).
    """

    __slots__ = ("group", "name", "x", "nbytes", "steps", "began", "matched", "done", "result", "error")

    def __init__(self, group: ProcessGroup, name: str, x, nbytes: int, steps: Steps):
        self.group, self.name, self.x, self.nbytes, self.steps = group, name, x, nbytes, steps
        self.began = self.matched = time.perf_counter()
        self.done, self.result, self.error = False, None, None

    def poll(self) -> bool:
        """True once the collective is finished."""
        if not self.done:
            self.group.progress()
        if self.error is not None:
            raise self.error
        return self.done

    def wait(self):
        while not self.done:
            self.group.pause()
        self.poll()
        return self.result

    def advance(self) -> bool:
        """Go on as far as it goes without waiting; true if that is the end. For the group, which knows the order."""
        try:
            next(self.steps)
            return False
        except StopIteration as finished:
            self.result, self.matched = _as_given(self.x, finished.value), self.group.matched
            if self.group.on_collective is not None:
                self.group.on_collective(self)
        except Exception as error:
            self.error = error
        self.done = True
        return True

    @property
    def call(self) -> CollectiveCall:
        return CollectiveCall(self.name, self.group.axes, self.group.size, self.nbytes)


class ProcessGroup(ABC):
    """`size` ranks, of which this one is `rank`.

    A collective must be called by every rank of the group, in the same order; messages from one rank to another arrive
    in the order in which they were sent. Tensors and plain arrays of the device are taken alike, and the same kind is
    returned. With `async_op=True` a method returns a Handle at once.

    on_collective: is told the Handle of each collective that has finished.
    """

    def __init__(self, rank: int, size: int, axes: tuple[str, ...] = ()):
        self.rank, self.size, self.axes = rank, size, axes
        self.on_collective: Callable[[Handle], None] | None = None
        self.matched = 0.0  # when all ranks of the collective that advanced last had come
        self._pending: defaultdict[tuple, deque[Handle]] = defaultdict(deque)  # what must run in order -> its handles
        self.in_flight = 0  # handles that are pending

    # What an engine must write

    @abstractmethod
    def _steps(self, name: str, x, *arguments) -> Steps:
        """Carry out the collective `name` on the array `x`; returns None or `x` itself where that was changed.

        arguments: (op,) for all_reduce, (op, out) for reduce_scatter, (out,) for all_gather, (op, dst) for reduce,
        (src,) for broadcast and recv, (dst,) for send. Where `out` is not None it takes the result and is returned.
        """

    @abstractmethod
    def pause(self) -> None:
        """Give way to other processes for a moment, then bring on what is pending here; raises if the run is over."""

    # Public

    def all_reduce(self, x, op: str = "sum", async_op: bool = False):
        """Every rank's `x` becomes the reduction of all ranks' `x`, in place, the same bits everywhere."""
        return self._run("all_reduce", x, _known(op), async_op=async_op)

    def reduce(self, x, dst: int = 0, op: str = "sum", async_op: bool = False):
        """`x` of rank `dst` becomes the reduction, in place; the others' stay as they are."""
        return self._run("reduce", x, _known(op), self._member(dst), async_op=async_op)

    def reduce_scatter(self, x, op: str = "sum", out=None, async_op: bool = False):
        """This rank's 1/size, along dimension 0, of the reduction of all ranks' `x`: in `out`, or as a new tensor.

        `out` may be that very part of `x`; elsewhere the two must not overlap.
        """
        self._check_rows("reduce_scatter", x, self.size)
        if out is not None:
            _check_out("reduce_scatter", out, (x.shape[0] // self.size, *x.shape[1:]), x)
            self._check_overlap("reduce_scatter", _array(x), _array(out))
        return self._run("reduce_scatter", x, _known(op), _array(out), async_op=async_op, out=out)

    def all_gather(self, x, out=None, async_op: bool = False):
        """The ranks' `x`, joined along dimension 0 in rank order: in `out`, or as a new tensor.

        `x` may be this rank's part of `out`; elsewhere the two must not overlap.
        """
        self._check_rows("all_gather", x, 1)
        if out is not None:
            _check_out("all_gather", out, (x.shape[0] * self.size, *x.shape[1:]), x)
            self._check_overlap("all_gather", _array(out), _array(x))
        return self._run("all_gather", x, _array(out), async_op=async_op, out=out, factor=self.size)

    def all_to_all(self, x, async_op: bool = False):
        """A new tensor: slice `rank` along dimension 0 of every rank's `x`, joined in rank order."""
        self._check_rows("all_to_all", x, self.size)
        return self._run("all_to_all", x, async_op=async_op)

    def broadcast(self, x, src: int = 0, async_op: bool = False):
        """Every rank's `x` becomes that of rank `src`, in place."""
        return self._run("broadcast", x, self._member(src), async_op=async_op)

    def send(self, x, dst: int, async_op: bool = False):
        """Hand a copy of `x` to rank `dst`. Returns when `x` may be changed, not when it has arrived."""
        return self._run("send", x, self._other(dst), async_op=async_op, order=("send", dst))

    def recv(self, x=None, src: int = 0, async_op: bool = False):
        """The next tensor that rank `src` sent: into `x`, or as a new one where `x` is None."""
        return self._run("recv", x, self._other(src), async_op=async_op, order=("recv", src))

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
        self._check_rows("scatter", x, self.size)
        parts = np.split(_array(x), self.size)
        for r in range(self.size):
            if r != src:
                self.send(_like(x, np.ascontiguousarray(parts[r])), r)
        return _like(x, parts[src].copy())

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

    def _run(self, name, x, *arguments, async_op=False, out=None, factor=1, order=()):
        if x is not None or name not in ("barrier", "recv"):
            _check_array(name, x)
        array = _array(x)
        if not (async_op or self.in_flight or self.on_collective):
            return _as_given(x if out is None else out, self._finish(self._steps(name, array, *arguments)))
        nbytes = 0 if array is None else factor * array.nbytes
        handle = Handle(self, name, x if out is None else out, nbytes, self._steps(name, array, *arguments))
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

    def _check_rows(self, name: str, x, divisor: int) -> None:
        _check_array(name, x)
        if not x.shape or x.shape[0] % divisor:
            raise ValueError(f"{name} over {self.size} ranks cannot divide dimension 0 of a tensor of shape {x.shape}")

    def _check_overlap(self, name: str, whole, part) -> None:
        """ValueError if `part` shares memory with `whole` elsewhere than where it is this rank's part of it."""
        if isinstance(whole, np.ndarray) and np.may_share_memory(whole, part):
            own = whole[self.rank * len(part) : (self.rank + 1) * len(part)]
            if own.__array_interface__["data"] != part.__array_interface__["data"]:
                raise ValueError(f"{name} needs an out that overlaps with x at this rank's part of it, or nowhere")


class MetaGroup(ProcessGroup):
    """A group that communicates nothing: it gives the result's shape and records the call in the profile."""

    def __init__(self, rank: int, size: int, axes: tuple[str, ...] = ()):
        super().__init__(rank, size, axes)
        if size > 1:
            self.on_collective = lambda handle: meta.note(handle.call)

    def _steps(self, name, x, *arguments):
        if name in ("all_gather", "reduce_scatter"):
            rows = x.shape[0] * self.size if name == "all_gather" else x.shape[0] // self.size
            out = arguments[-1]
            x = MetaArray((rows, *x.shape[1:]), x.dtype) if out is None else out
        elif name == "all_to_all":
            x = MetaArray(x.shape, x.dtype)
        return x
        yield  # makes this a generator; it never waits

    def pause(self) -> None:
        raise RuntimeError("on meta nobody else communicates: there is nothing to wait for")


def _as_given(x, result):
    """The result as the caller gave `x`: a Tensor for a Tensor (or for nothing), `x` itself where it was changed."""
    if result is None or result is x or (isinstance(x, Tensor) and result is x.data):
        return x
    return result if isinstance(x, (np.ndarray, MetaArray)) else Tensor(result)


def _known(op: str) -> str:
    reduction(op)
    return op


def _check_array(name: str, x) -> None:
    if not isinstance(x, (Tensor, np.ndarray, MetaArray)):
        raise TypeError(f"{name} needs a Tensor or an array, not a {type(x).__name__}")
    if x.dtype.kind not in "biufc":
        raise TypeError(f"{name} needs numbers, not an array of {x.dtype}")


def _check_out(name: str, out, shape: tuple[int, ...], x) -> None:
    _check_array(name, out)
    if out.shape != shape or out.dtype != x.dtype:
        raise ValueError(f"{name} needs an out of shape {shape} and {x.dtype}, not {out.shape} and {out.dtype}")
    array = _array(out)
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise ValueError(f"{name} needs a contiguous out")


def _array(x):
    return x.data if isinstance(x, Tensor) else x


def _like(x, array):
    return Tensor(array) if isinstance(x, Tensor) else array


def reduction(op: str) -> np.ufunc:
    """The elementwise function of a reduction's name. ValueError for an unknown one."""
    if op not in REDUCTIONS:
        raise ValueError(f"unknown reduction {op!r}: choose one of {', '.join(REDUCTIONS)}")
    return REDUCTIONS[op]
