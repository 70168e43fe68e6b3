"""Instruction: what all have, and how buffers are named.

An instruction names the buffers it reads, writes and frees; they are the only dependency between lanes. Within a lane,
instructions run first-in first-out. Nothing here says how long an instruction takes or how many bytes it moves: the
worker measures that, the simulator looks it up.

Buffers are tuples, private to a rank:

    ("input", c, m)        what chunk c takes for micro-batch m        ("target", m)  the labels
    ("output", c, m)       what it gives                               ("loss", m)    sum and weight of the loss
    ("saved", c, m)        what its forward keeps for its backward     ("total",)     the loss of the global batch
    ("gradient", c, m, b)  gradient with respect to the output of bucket b of chunk c: for the last bucket what comes
                           from the next stage or the loss, for -1 what goes to the previous stage
    ("weights", c, b, m)   gradient of the parameters of bucket b, accumulated up to micro-batch m
    ("reduced", c, b)      the same, summed over the replicas
    ("share", c, b)        this replica's share of that sum    ("updated", c, b)  its share of the updated parameters
    ("norm",)              of the whole gradient, squared      ("squares",)       sums of squares that the update needs,
    ("norms",)             the same for whole parameters                          for this rank's parts of parameters
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from minidl.trace import COMPUTE

Buffer = tuple


@dataclass(frozen=True)
class Instruction:
    """What every instruction has: its lane, and the buffers it reads, writes and frees.

    It frees what it reads, unless it says otherwise. Buffers are worked out once: a step is run thousands of times.
    """

    lane: ClassVar[str] = COMPUTE
    label: ClassVar[str] = ""

    @cached_property
    def reads(self) -> tuple[Buffer, ...]:
        return ()

    @cached_property
    def writes(self) -> tuple[Buffer, ...]:
        return ()

    @cached_property
    def frees(self) -> tuple[Buffer, ...]:
        return self.reads

    @cached_property
    def name(self) -> str:
        """A short name for timelines: the label and the micro-batch."""
        return self.label + (str(self.micro_batch) if hasattr(self, "micro_batch") else "")


def are_shares(gradients: tuple[Buffer, ...]) -> bool:
    """Whether each replica has its share alone of these gradients."""
    return any(kind == "share" for kind, *_ in gradients)
