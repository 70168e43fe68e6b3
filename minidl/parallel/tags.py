"""Tags: what the checker has in buffers instead of numbers, and what it knows beside them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import NamedTuple

from minidl.parallel import instructions as I
from minidl.parallel.instructions import BufferName
from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Apart, Layout
from minidl.parallel.machine import Lanes
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program
from minidl.parallel.slots import Place, dropped, slots


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


class Gathered(NamedTuple):
    """What parameters in a slot stand for: those of one bucket, whole."""

    place: tuple[int, int]
    version: Version


class Samples(NamedTuple):
    """Which samples are in a sum, and which of those more than once: a bit for each (`Facts.samples`)."""

    there: int = 0
    twice: int = 0

    def __add__(self, other: Samples) -> Samples:
        there, twice = self
        added, added_twice = other
        return Samples(there | added, twice | added_twice | there & added)


class Sum(NamedTuple):
    """What losses and gradients stand for: the samples that are in them. whole: this is no share of the sum.

    place: in a slot, the bucket whose gradients these are. A sample is (replica, micro-batch); in gradients of what is
    apart (replica, micro-batch, block, part), the last one the place of the rank that found this part of it.
    """

    samples: Samples
    whole: bool = True
    place: tuple[int, int] | None = None


MEASURED, REDUCED = "measured", "reduced"  # what norms are: of this rank's parts alone, or of whole parameters


class Brought:
    """What all have brought to a collective: the tags of what they read."""

    def __init__(self, tags: Iterable[object]):
        self.tags = list(tags)

    @cached_property
    def samples(self) -> Samples:
        """Of sums, the samples that are in all of them together."""
        return reduce(Samples.__add__, (tag.samples for tag in self.tags), Samples())


Tags = dict[BufferName, object]  # of what is written; what is left out has a tag that says nothing


@dataclass(frozen=True)
class Facts:
    """What rules know beside a rank: the plan, where blocks are, and the ranks that are run.

    statistics: the model has running statistics. A replica that is not run is represented by one that is: its samples
    are then in the reduced gradient as well.
    """

    plan: Plan
    layout: Layout
    meshes: tuple[Mesh, ...]
    statistics: bool
    fits: dict[tuple[int, int], tuple] = field(
        default_factory=dict
    )  # of a stage, what was found to fit it, by identity
    _numbers: dict[Hashable, int] = field(default_factory=dict)  # of each sample, its bit
    _alone: dict[Hashable, Samples] = field(default_factory=dict)

    @cached_property
    def dropped(self) -> list[dict[Place, int]]:
        """Of each stage the buckets of which a rank has its share alone, but in the slots where they are gathered."""
        return [dropped(self.plan, self.layout, stage) for stage in range(len(self.layout.stages))]

    @cached_property
    def slots(self) -> list[dict[Place, int]]:
        """Of each stage the buckets whose gradients are reduced after every micro-batch, and the slots for that."""
        return [slots(self.plan, self.layout, stage) for stage in range(len(self.layout.stages))]

    def samples(self, found: Iterable[Hashable]) -> Samples:
        """These samples, each of which is named once."""
        there = 0
        for sample in found:
            there |= 1 << self._numbers.setdefault(sample, len(self._numbers))
        return Samples(there)

    def sample(self, sample: Hashable) -> Samples:
        """One."""
        if sample not in self._alone:
            self._alone[sample] = self.samples([sample])
        return self._alone[sample]

    def names(self, bits: int) -> list[Hashable]:
        """The samples whose bits these are, in order."""
        return sorted(sample for sample, number in self._numbers.items() if bits >> number & 1)

    @cached_property
    def _batch(self) -> list[tuple[int, int]]:
        """The samples of the global batch."""
        replicas = {mesh.replica for mesh in self.meshes}
        return [(replica, m) for replica in replicas for m in range(self.plan.micro_batches)]

    @cached_property
    def batch(self) -> Samples:
        return self.samples(self._batch)

    def needed(self, buffer: BufferName) -> Samples:
        """The samples that gradients or losses must have in them."""
        return self.needed_apart[buffer.bucket] if buffer.chunk == APART else self.batch

    @cached_property
    def needed_apart(self) -> list[Samples]:
        """The same, of what is apart."""
        parts = [{_part(mesh, apart) for mesh in self.meshes} for apart in self.layout.apart]
        return [
            self.samples((*sample, block, part) for sample in self._batch for block in apart.trained for part in found)
            for apart, found in zip(self.layout.apart, parts, strict=True)
        ]

    def found(self, number: int, mesh: Mesh, samples: tuple[int, int], chunk: int, bucket: int) -> Samples:
        """The samples in the gradient of what is apart that a backward of `samples` through a bucket finds.

        Layers bring together the samples of the replicas that hold other parts of it, the experts of one layer.
        """
        apart, run = self.layout.apart[number], range(*self.layout.buckets[chunk][bucket])
        blocks, part = [block for block in apart.trained if block in run], _part(mesh, apart)
        together = self._together[apart.reduction.replicas][samples[0]]
        return self.samples((replica, samples[1], block, part) for replica in together for block in blocks)

    @cached_property
    def _together(self) -> dict[tuple[str, ...], dict[int, list[int]]]:
        """For axes along which parameters are the same: of each replica those that differ along the other axes."""
        found = {}
        for axes in {apart.reduction.replicas for apart in self.layout.apart}:
            alike: dict[tuple[int, ...], list[int]] = {}
            places = {mesh.replica: tuple(mesh.coordinate(axis) for axis in axes) for mesh in self.meshes}
            for replica, place in places.items():
                alike.setdefault(place, []).append(replica)
            found[axes] = {replica: alike[place] for replica, place in places.items()}
        return found


def _part(mesh: Mesh, apart: Apart) -> tuple[int, ...]:
    """Which part of the gradient of one sample a rank finds."""
    return tuple(mesh.index(axis) for axis in apart.reduction.also)


class RankTags:
    """One rank as far as it has come: its lanes, and the tag of each buffer that exists."""

    def __init__(self, program: Program, facts: Facts, rank: int):
        self.number, self.mesh, self.lanes = rank, program.plan.mesh(rank), Lanes({})
        replica = self.mesh.replica
        starts = {"parameters": Version(0, True), "statistics": replica, "state": None}  # statistics: whose they are
        self.tags: dict[BufferName, object] = {buffer: starts[buffer.holds] for buffer in program.persistent(rank)}
        self.stage = self.mesh.coordinate("pipeline")
        for place in facts.dropped[self.stage]:
            self.tags[B.parameters(*place)] = Version(0, False)
        self.live: dict[tuple[int, int], int] = {}  # (chunk, micro-batch) -> buckets that keep their activations
        self.peak = 0

    def keep(self, i: I.Forward | I.Recompute, buckets: int) -> None:
        """So many buckets keep what backward needs."""
        key = i.chunk, i.micro_batch
        self.live[key] = self.live.get(key, 0) + buckets
        self.peak = max(self.peak, len(self.live))

    def drop(self, i: I.Backward | I.BackwardWeights) -> None:
        """Its buckets keep nothing any more."""
        key = i.chunk, i.micro_batch
        left = self.live.get(key, 0) - len(i.buckets)
        if left > 0:
            self.live[key] = left
        else:
            self.live.pop(key, None)
