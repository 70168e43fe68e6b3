"""Again: instructions of one micro-batch made anew for others, which is quicker than by their classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions.buffers import of_micro_batch
from minidl.parallel.instructions.instruction import Touched


class Again:
    """`instructions` of one micro-batch: `Again(instructions).of(m)` are those of micro-batch `m`.

    They differ in nothing but its number, in themselves and in the names of their buffers; their `work` is the very
    same.
    """

    def __init__(self, instructions: Sequence[Instruction]):
        touched = [[getattr(i, name) for name in Touched._fields] for i in instructions]
        buffers = dict.fromkeys(buffer for each in touched for names in each for buffer in names)
        self._same = [buffer for buffer in buffers if buffer.micro_batch is None]
        self._other = [buffer for buffer in buffers if buffer.micro_batch is not None]
        place = {buffer: n for n, buffer in enumerate((*self._same, *self._other))}
        self._made = [
            (type(i), vars(i) | {"work": i.work}, "micro_batch" in vars(i), [_taker(place, names) for names in each])
            for i, each in zip(instructions, touched, strict=True)
        ]
        for _, own, _, _ in self._made:
            own.pop("name", None)

    def of(self, micro_batch: int) -> list[Instruction]:
        buffers = (*self._same, *[of_micro_batch(buffer, micro_batch) for buffer in self._other])
        made = []
        for kind, own, numbered, (reads, writes, frees) in self._made:
            i = object.__new__(kind)
            vars(i).update(own, reads=reads(buffers), writes=writes(buffers), frees=frees(buffers))
            if numbered:
                vars(i)["micro_batch"] = micro_batch
            made.append(i)
        return made


def _taker(place: dict[BufferName, int], names: Sequence[BufferName]) -> Callable[[tuple], tuple]:
    """A function of all buffers, to these."""
    first, *more = [place[name] for name in names] or [0]
    return itemgetter(first, *more) if more else itemgetter(slice(first, first + len(names)))
