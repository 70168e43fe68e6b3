"""Lists in which what slots are for comes just in time: parameters before their use, shares when a slot is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from minidl.parallel import instructions as I
from minidl.parallel.instructions import Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.slots import Place


def just_in_time(step: Iterable[Instruction], gather: Callable[[Place], Instruction]) -> Iterator[Instruction]:
    """`step`, in which parameters are gathered before whatever needs them in a slot.

    The next ones come one use ahead, where their slots are free: while this one computes.
    """
    step = list(step)
    uses = deque(i for i in step if isinstance(i, I.ThroughBuckets) and i.gathered)
    held: dict[B.BufferName, Place] = {}

    def missing(use: I.ThroughBuckets) -> list[tuple[Place, B.BufferName]]:
        return [(place, slot) for place, slot in use.gathered if held.get(slot) != place]

    def gathered(places: list[tuple[Place, B.BufferName]]) -> Iterator[Instruction]:
        for place, slot in places:
            held[slot] = place
            yield gather(place)

    for i in step:
        if uses and uses[0] is i:
            uses.popleft()
            yield from gathered(missing(i))
            ahead = next(filter(None, map(missing, islice(uses, 2))), [])  # a backward has what its Recompute has
            if not any(slot in held for _, slot in ahead):
                yield from gathered(ahead)
        yield i
        if held:
            for buffer in i.frees:
                held.pop(buffer, None)


def added_up(step: Iterable[Instruction]) -> Iterator[Instruction]:
    """`step`, in which what was reduced of one micro-batch is added up when its slot is needed again.

    So compute goes on meanwhile.
    """
    reduced: dict[B.BufferName, I.AddShare] = {}
    begun: set[Place] = set()
    for i in step:
        if reduced:
            yield from (reduced.pop(slot) for slot in i.writes if slot in reduced)
        yield i
        if isinstance(i, I.ReduceScatterGradients) and i.slot:
            place = i.chunk, i.bucket
            reduced[i.slot] = I.AddShare(*place, i.slot, accumulates=place in begun)
            begun.add(place)
    yield from reduced.values()
