"""Instruction: one step of one rank, as data; what all have.

An instruction says by data alone what it does to whom: its lane, its kind, and the buffers it reads, writes and frees.
By these the machine (machine.py) orders it, for every reader of a program. Nothing here says how long an instruction
takes or how many bytes it moves: the worker measures that, the simulator looks it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import ClassVar, NamedTuple

from minidl.parallel.instructions.buffers import BufferName
from minidl.parallel.mesh import Axis
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES


class found_once:
    """A property that is found when it is first asked for.

    As functools.cached_property, without the lock that this takes in Python 3.11: there are thousands of instructions.
    """

    def __init__(self, find: Callable):
        self.find, self.__doc__ = find, find.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None):
        if instance is None:
            return self
        found = vars(instance)[self.name] = self.find(instance)
        return found


KINDS = ("compute", "send", "receive", "collective")


class Touched(NamedTuple):
    """The buffers of an instruction; those that its worker takes by their place come first.

    What it reads and writes, it changes in place.
    """

    reads: Iterable[BufferName] = ()
    writes: Iterable[BufferName] = ()
    frees: Iterable[BufferName] = ()


@dataclass(frozen=True)
class Instruction:
    """What every instruction has: a lane, a kind, a label for timelines, and its buffers.

    It frees only what it reads. Within a lane instructions run first-in first-out. A new instruction is its class, its
    place in the lists (assembly.py), what the worker does (runtime/worker.py, runtime/communication.py), what that
    proves (rules.py), its colour (plots.py) and, if it computes, the calls by which it is priced (costs.py); a new kind
    of buffer also has its bytes (buffer_bytes.py). One of a user's own says these itself (custom.py). Fields that hold
    chunks or peers have the names in STAND_INS.

    uses_up: what it frees goes bit by bit while it works, and is gone when what it writes is there. slots: how long it
    takes where a program is drawn without clocks, all instructions of one micro-batch and chunk together.
    """

    lane: ClassVar[str] = COMPUTE
    kind: ClassVar[str] = "compute"
    label: ClassVar[str] = ""
    uses_up: ClassVar[bool] = False
    slots: ClassVar[int] = 0
    reads: tuple[BufferName, ...] = field(init=False, repr=False, compare=False)
    writes: tuple[BufferName, ...] = field(init=False, repr=False, compare=False)
    frees: tuple[BufferName, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        reads, writes, frees = self.touches()
        vars(self).update(reads=tuple(reads), writes=tuple(writes), frees=tuple(frees))

    def touches(self) -> Touched:
        """What it reads, writes and frees."""
        raise NotImplementedError

    @found_once
    def work(self) -> tuple:
        """Equal for instructions that do the same to another micro-batch, and so cost the same."""
        own = vars(self)
        return type(self), *[own[name] for name in _given(type(self))]

    def work_in(self, chunks: Mapping[int, int]) -> tuple:
        """`work`, but for its peers, with other chunks in place of those that are in `chunks`."""
        work = list(self.work)
        for position, stand_in in _stand_ins(type(self)):
            work[position] = stand_in(work[position], chunks)
        return tuple(work)

    @found_once
    def name(self) -> str:
        """A short name for timelines: the label and the micro-batch."""
        return self.label + (str(self.micro_batch) if hasattr(self, "micro_batch") else "")


@cache
def _given(kind: type[Instruction]) -> list[str]:
    """The fields with which an instruction is made, but for the micro-batch."""
    return [field.name for field in fields(kind) if field.init and field.name != "micro_batch"]


def _in_chunks(places: Iterable[tuple[int, int]], chunks: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """The same buckets of the chunks that stand in for theirs."""
    return tuple([(chunks.get(chunk, chunk), bucket) for chunk, bucket in places])


# By the name of a field that holds chunks or a peer, what stands in for its value. Slots stay as they are, with the
# stage that they are of: what is done in them has no like on another.
STAND_INS: dict[str, Callable[[object, Mapping[int, int]], object]] = {
    "chunk": lambda chunk, chunks: chunks.get(chunk, chunk),
    "buckets": _in_chunks,
    "sharded": _in_chunks,
    "to": lambda peer, chunks: None,
    "source": lambda peer, chunks: None,
}


@cache
def _stand_ins(kind: type[Instruction]) -> list[tuple[int, Callable]]:
    """Those of an instruction's fields, with their positions in `work`."""
    return [(n, STAND_INS[name]) for n, name in enumerate(_given(kind), 1) if name in STAND_INS]


@dataclass(frozen=True)
class Message(Instruction):
    """An activation or a gradient on its way between the holders of two chunks.

    tuple_of: where a flat tuple of arrays is taken there, whether each is of floats; empty for a single array.
    """

    tuple_of: tuple[bool, ...] = field(default=(), kw_only=True, repr=False)
    lane: ClassVar[str] = MESSAGES
    message: ClassVar[str]

    @property
    def arrays(self) -> tuple[bool, ...]:
        """Of what is on both sides, whether each array is sent: of a gradient only those of floats are there."""
        return (self.tuple_of if self.message == "gradient" else (True,) * len(self.tuple_of)) or (True,)


class Send(Message):
    """To rank `to`. It is done when the message is copied, not when it has arrived.

    Pairs with the Receive of the same `message` there.
    """

    kind = "send"
    to: int

    @property
    def payload(self) -> tuple[BufferName, ...]:
        """What it moves, and what is gone then."""
        raise NotImplementedError

    def touches(self):
        return Touched(reads=self.payload, frees=self.payload)


class Receive(Message):
    """The next message from rank `source`."""

    kind = "receive"
    source: int

    @property
    def payload(self) -> tuple[BufferName, ...]:
        """What comes."""
        raise NotImplementedError

    def touches(self):
        return Touched(writes=self.payload)


class Collective(Instruction):
    """A `collective` of the ranks that differ along `axes` at most. Pairs with the same one on each of them."""

    lane, kind = COLLECTIVES, "collective"
    axes: tuple[Axis, ...]
    collective: ClassVar[str]

    @property
    def is_whole(self) -> bool:
        """Whether all ranks along its axes come: then it takes as long as the slowest of its groups, whoever asks."""
        return all(isinstance(axis, str) for axis in self.axes)

    @property
    def one_copy(self) -> bool:
        """Whether ranks that share memory have what it gives once, for all: then they only meet, and move nothing."""
        return False

    @property
    def payload(self) -> tuple[BufferName, ...]:
        """What it moves."""
        return self.writes


class InPlace(Collective):
    """A collective that makes what it `changes` of what all ranks have there."""

    @property
    def changes(self) -> tuple[BufferName, ...]:
        raise NotImplementedError

    def touches(self):
        return Touched(reads=self.changes, writes=self.changes)
