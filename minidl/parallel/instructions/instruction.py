"""Instruction: what all have.

An instruction says by data alone what it does to whom: its lane, its kind, and the buffers it reads, writes and frees.
By these the machine (machine.py) orders it, for every reader of a program. Nothing here says how long an instruction
takes or how many bytes it moves: the worker measures that, the simulator looks it up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import ClassVar, NamedTuple

from minidl.parallel.instructions.buffers import Buffer
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES

KINDS = ("compute", "send", "receive", "collective")


class Touched(NamedTuple):
    """The buffers of an instruction. What it reads and writes, it changes in place."""

    reads: Iterable[Buffer] = ()
    writes: Iterable[Buffer] = ()
    frees: Iterable[Buffer] = ()


@dataclass(frozen=True)
class Instruction:
    """What every instruction has: a lane, a kind, a label for timelines, and its buffers.

    It frees only what it reads. Within a lane instructions run first-in first-out. A new instruction is its class, what
    the worker does (runtime/worker.py) and, if it computes, the calls by which it is priced (costs.py).
    """

    lane: ClassVar[str] = COMPUTE
    kind: ClassVar[str] = "compute"
    label: ClassVar[str] = ""
    reads: tuple[Buffer, ...] = field(init=False, repr=False, compare=False)
    writes: tuple[Buffer, ...] = field(init=False, repr=False, compare=False)
    frees: tuple[Buffer, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        vars(self).update(zip(Touched._fields, map(tuple, self.touches()), strict=True))

    def touches(self) -> Touched:
        """What it reads, writes and frees."""
        raise NotImplementedError

    @cached_property
    def work(self) -> tuple:
        """Equal for instructions that do the same to another micro-batch, and so cost the same."""
        given = (f.name for f in fields(self) if f.init and f.name != "micro_batch")
        return type(self), *(getattr(self, name) for name in given)

    @cached_property
    def name(self) -> str:
        """A short name for timelines: the label and the micro-batch."""
        return self.label + (str(self.micro_batch) if hasattr(self, "micro_batch") else "")


class Send(Instruction):
    """A message to rank `to`. It is done when the message is copied, not when it has arrived.

    Pairs with the Receive of the same `message` there.
    """

    lane, kind = MESSAGES, "send"
    message: ClassVar[str]
    to: int

    @property
    def payload(self) -> tuple[Buffer, ...]:
        """What it moves."""
        return self.reads


class Receive(Instruction):
    """The next message from rank `source`."""

    lane, kind = MESSAGES, "receive"
    message: ClassVar[str]
    source: int

    @property
    def payload(self) -> tuple[Buffer, ...]:
        return self.writes


class Collective(Instruction):
    """A `collective` of the ranks that differ along `axes` at most. Pairs with the same one on each of them."""

    lane, kind = COLLECTIVES, "collective"
    axes: tuple[str, ...]
    collective: ClassVar[str]

    @property
    def payload(self) -> tuple[Buffer, ...]:
        return self.writes
