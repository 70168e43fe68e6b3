"""Tags: what the checker has in buffers instead of numbers, and what it knows beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from minidl.parallel import instructions as I
from minidl.parallel.instructions import Buffer
from minidl.parallel.instructions.buffers import TIED
from minidl.parallel.layout import Layout
from minidl.parallel.machine import Lanes
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program


class ProgramError(ValueError):
    """A program that would deadlock, or compute something else than its plan says."""


class Tag(NamedTuple):
    """What an array stands for: a micro-batch of a replica, after so many blocks of the chain."""

    replica: int
    micro_batch: int
    blocks: int

    @property
    def samples(self) -> tuple[int, int]:
        return self.replica, self.micro_batch

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch} of replica {self.replica} after {self.blocks} blocks"


class Version(NamedTuple):
    """What parameters stand for: how many updates they have had, and whether all of them or this replica's share."""

    updates: int
    whole: bool


class Sum(NamedTuple):
    """What losses and gradients stand for: how often each sample is in them. whole: this is no share of the sum."""

    samples: Counter
    whole: bool = True


MEASURED, REDUCED = "measured", "reduced"  # what norms are: of this rank's parts alone, or of whole parameters


class Brought:
    """What all have brought to a collective: the tags of what they read."""

    def __init__(self, tags: Iterable[object]):
        self.tags = list(tags)

    @cached_property
    def samples(self) -> Counter:
        """Of sums, how often each sample is in all of them together."""
        total: Counter = Counter()
        for tag in self.tags:
            total.update(tag.samples)
        return total


Tags = dict[Buffer, object]  # of what is written; what is left out has a tag that says nothing


@dataclass(frozen=True)
class Facts:
    """What rules know beside a rank: the plan, where blocks are, and the samples of the global batch.

    statistics: the model has running statistics.
    """

    plan: Plan
    layout: Layout
    batch: Counter
    statistics: bool

    def needed(self, buffer: Buffer) -> Counter:
        """The samples that gradients or losses must have in them; of a tied parameter, with the block they come by."""
        if buffer.chunk != TIED:
            return self.batch
        blocks = self.layout.ties[buffer.bucket].trained
        return Counter((*sample, block) for sample in self.batch for block in blocks)

    def holders(self, tie: int, chunk: int, bucket: int) -> list[int]:
        """The blocks of a bucket that give a tied parameter a gradient."""
        run = range(*self.layout.buckets[chunk][bucket])
        return [block for block in self.layout.ties[tie].trained if block in run]


class RankTags:
    """One rank as far as it has come: its lanes, and the tag of each buffer that exists."""

    def __init__(self, program: Program, rank: int):
        self.number, self.mesh, self.lanes = rank, program.plan.mesh(rank), Lanes({})
        replica = self.mesh.coordinate("data")
        starts = {"parameters": Version(0, True), "statistics": replica, "state": None}  # statistics: whose they are
        self.tags: dict[Buffer, object] = {buffer: starts[buffer.holds] for buffer in program.persistent(rank)}
        self.live: Counter = Counter()  # (chunk, micro-batch) -> buckets that keep their activations
        self.peak = 0

    def keep(self, i: I.Forward | I.Recompute) -> None:
        """A bucket keeps what backward needs."""
        self.live[i.chunk, i.micro_batch] += 1
        self.peak = max(self.peak, len(self.live))
