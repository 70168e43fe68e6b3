"""One collective: what is told of it (CollectiveCall), and what its caller holds while it is under way (Handle)."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from minidl.kernels.meta import MetaArray
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.parallel.group import ProcessGroup

Steps = Generator[None, None, object]  # yields while waiting; returns the collective's result


@dataclass(frozen=True, slots=True)
class CollectiveCall:
    """One collective of the ranks along `axes`. nbytes: the whole tensor's, before or after, the larger.

    phase: "" where the caller waits for it at once; "start" where it goes on beside what follows, and "wait" where it
    is waited for. number: by which the two are known as one.
    """

    name: str
    axes: tuple[str, ...]
    size: int
    nbytes: int
    phase: Literal["", "start", "wait"] = ""
    number: int = 0


class Handle:
    """A collective under way. `wait()` gives its result; `poll()` brings it on as far as it goes without waiting.

    Both raise what went wrong in it. matched: when all of its ranks had come. stopped: since when its caller waits for
    it, or else does something for it (time.perf_counter). async_op: it was asked for so.
    """

    __slots__ = (
        "group", "name", "x", "nbytes", "steps", "matched", "stopped", "done", "result", "error", "async_op", "number",
        "waiting",
    )  # fmt: skip

    def __init__(self, group: ProcessGroup, name: str, x, nbytes: int, steps: Steps, async_op: bool):
        self.group, self.name, self.x, self.nbytes, self.steps = group, name, x, nbytes, steps
        self.matched = self.stopped = time.perf_counter()
        self.done, self.result, self.error = False, None, None
        self.async_op, self.number, self.waiting = async_op, 0, False

    def poll(self) -> bool:
        """True once the collective is finished."""
        if not self.done:
            self.group.progress()
        if self.error is not None:
            raise self.error
        return self.done

    def wait(self):
        self.stopped, self.waiting = time.perf_counter(), True
        while not self.done:
            self.group.pause()
        self.poll()
        if self.group.on_wait is not None:
            self.group.on_wait(self)
        return self.result

    def advance(self) -> bool:
        """Go on as far as it goes without waiting; true if that is the end. For the group, which knows the order."""
        if not self.waiting:
            self.stopped = time.perf_counter()
        try:
            next(self.steps)
            return False
        except StopIteration as finished:
            self.result, self.matched = as_given(self.x, finished.value), self.group.matched
            if self.group.on_collective is not None:
                self.group.on_collective(self)
        except Exception as error:
            self.error = error
        self.done = True
        return True

    @property
    def call(self) -> CollectiveCall:
        return CollectiveCall(self.name, self.group.axes, self.group.size, self.nbytes)


def as_given(x, result):
    """The result as the caller gave `x`: a Tensor for a Tensor (or for nothing), `x` itself where it was changed."""
    if result is None or result is x or (isinstance(x, Tensor) and result is x.data):
        return x
    return result if isinstance(x, (np.ndarray, MetaArray)) else Tensor(result)
