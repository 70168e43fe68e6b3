"""The process group of the meta device: nothing is communicated, and every call goes into the profile."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.parallel.collective_arguments import split_sizes
from minidl.parallel.group import ProcessGroup
from minidl.parallel.handle import Handle


class MetaGroup(ProcessGroup):
    """A group that communicates nothing: it gives the result's shape and records the call in the profile."""

    def __init__(self, rank: int, size: int, axes: tuple[str, ...] = ()):
        super().__init__(rank, size, axes)
        if size > 1:
            self.on_collective, self.on_wait = self._note, self._note_wait
        self._numbers = count(1)

    def _note(self, handle: Handle) -> None:
        if handle.async_op:
            handle.number = next(self._numbers)
        self._note_phase(handle, "start" if handle.async_op else "")

    def _note_wait(self, handle: Handle) -> None:
        if handle.number:  # 0 for one that is waited for at once, or was already
            self._note_phase(handle, "wait")
            handle.number = 0

    def _note_phase(self, handle: Handle, phase: str) -> None:
        meta.note(replace(handle.call, phase=phase, number=handle.number))

    def _steps(self, name, x, *arguments):
        if x is None and name != "barrier":
            raise ValueError(f"{name} on meta needs x on every rank: its shape says that of the result")
        if name in ("all_gather", "reduce_scatter") and arguments[-1] is not None:
            return arguments[-1]
        if name == "gather" and arguments[0] != self.rank:
            return None
        rows = self._rows(name, x, *arguments)
        return x if rows is None else MetaArray((rows, *x.shape[1:]), x.dtype)
        yield  # makes this a generator; it never waits

    def _rows(self, name, x, *arguments) -> int | None:
        """Along dimension 0 of a new result; None where there is none."""
        if name in ("reduce_scatter", "scatter"):
            return split_sizes(x.shape[0], self.size)[self.rank]
        if name in ("all_gather", "gather"):
            sizes = arguments[0] if name == "all_gather" else arguments[1]
            return self.size * x.shape[0] if sizes is None else sum(sizes)
        if name == "all_to_all":
            received, _ = arguments
            return self.size * split_sizes(x.shape[0], self.size)[self.rank] if received is None else sum(received)
        return None

    def pause(self) -> None:
        raise RuntimeError("on meta nobody else communicates: there is nothing to wait for")
