"""Passes of a micro-batch through buckets of a chunk: forward, computed again, evaluated, backward, in two halves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.instruction import Instruction, Touched, found_once

Slots = tuple[tuple[tuple[int, int], B.BufferName], ...]  # of buckets, each with the buffer in which it lies for now


@dataclass(frozen=True)
class ThroughBuckets(Instruction):
    """A micro-batch goes through the buckets first to last of a chunk.

    apart: the numbers of what blocks of these buckets hold that is apart (layout.Apart). gathered: of those of both
    that replicas hold in shares, where each lies whole; a Recompute leaves it to the backward after it to drop that.
    """

    chunk: int
    micro_batch: int
    first: int
    last: int
    apart: tuple[int, ...] = field(default=(), kw_only=True)
    gathered: Slots = field(default=(), kw_only=True, repr=False)

    @found_once
    def buckets(self) -> range:
        return range(self.first, self.last + 1)

    @found_once
    def places(self) -> tuple[tuple[int, int], ...]:
        """The buckets as pairs (chunk, bucket), and as pairs (APART, number) what is apart."""
        return (*((self.chunk, b) for b in self.buckets), *((B.APART, n) for n in self.apart))

    @found_once
    def parameters(self) -> tuple[B.BufferName, ...]:
        """Where those of each place lie whole."""
        return _lie(self.places, B.parameters, self.gathered)

    @property
    def dropped(self) -> tuple[B.BufferName, ...]:
        return tuple(slot for _, slot in self.gathered)


@dataclass(frozen=True)
class Forward(ThroughBuckets):
    """Run the buckets first to last of `chunk` on `micro_batch`, keeping what backward needs.

    trained: the first bucket of the chunk that has a backward; those before keep nothing. recomputed: the others keep
    their input alone, of which Recompute makes the rest.
    """

    trained: int
    recomputed: bool
    label, slots = "F", 1

    def touches(self):
        chunk, m = self.chunk, self.micro_batch
        statistics = B.statistics(chunk)
        x = B.activation(chunk, m, self.first - 1)
        trained = [b for b in self.buckets if b >= self.trained]
        if self.recomputed:  # the first one's input is there already
            kept = [B.activation(chunk, m, b - 1) for b in trained if b > self.first]
        else:
            kept = [B.saved(chunk, m, b) for b in trained]
        return Touched(
            reads=[x, *self.parameters, statistics],
            writes=[B.activation(chunk, m, self.last), *kept, statistics],
            frees=[*[x] * (not self.recomputed or self.first < self.trained), *self.dropped],
        )


@dataclass(frozen=True)
class Recompute(ThroughBuckets):
    """Run a bucket, the first and the last, forward once more on the input that was kept, for what backward needs.

    Random numbers are the same again; running statistics stay as they are. What was gathered stays for the backward
    that follows.
    """

    label, slots = "R", 1

    def touches(self):
        x = B.activation(self.chunk, self.micro_batch, self.first - 1)
        saved = B.saved(self.chunk, self.micro_batch, self.first)
        return Touched(reads=[x, *self.parameters], writes=[saved], frees=[x])


@dataclass(frozen=True)
class Infer(ThroughBuckets):
    """Run the buckets first to last of `chunk` on `micro_batch`, keeping nothing: evaluation."""

    label, slots = "infer", 1

    def touches(self):
        chunk, x = self.chunk, B.activation(self.chunk, self.micro_batch, self.first - 1)
        model = [*self.parameters, B.statistics(chunk)]
        return Touched([x, *model], [B.activation(chunk, self.micro_batch, self.last)], [x, *self.dropped])


@dataclass(frozen=True)
class GivesGradients(ThroughBuckets):
    """What it finds are gradients of parameters.

    accumulates: they are added to those that are there; else they are the first. apart: what of that is trained;
    new_apart: of it that whose gradients are the first. local: of the places whose gradients are reduced after every
    micro-batch, in which slot they lie until then; they are always the first there.
    """

    accumulates: bool
    new_apart: tuple[int, ...] = field(default=(), kw_only=True)
    local: Slots = field(default=(), kw_only=True, repr=False)

    @found_once
    def gradients(self) -> tuple[B.BufferName, ...]:
        """Where those of each place lie."""
        return _lie(self.places, B.gradients, self.local)

    @property
    def added_to(self) -> tuple[B.BufferName, ...]:
        """The gradients that are there already."""
        apart = tuple(n for n in self.apart if n not in self.new_apart)
        return (*B.each(B.gradients, self.chunk, self.buckets) * self.accumulates, *B.each(B.gradients, B.APART, apart))


@dataclass(frozen=True)
class Backward(GivesGradients):
    """Bring the gradient of `micro_batch` back through the buckets first to last (last one first) of `chunk`.

    gives_gradient: somebody waits for the gradient of what the first bucket takes.
    """

    gives_gradient: bool
    label, uses_up, slots = "B", True, 2

    def touches(self):
        used_up, given = _way_back(self)
        return Touched(
            reads=[*used_up, *self.parameters, *self.added_to],
            writes=[*given, *self.gradients],
            frees=[*used_up, *self.dropped],
        )


@dataclass(frozen=True)
class BackwardInput(ThroughBuckets):
    """The first half of a Backward: the gradients of inputs, block by block (Qi et al. 2023, section 2).

    Those of parameters, or what products and convolutions make them of, are left to BackwardWeights.
    """

    gives_gradient: bool
    label, uses_up, slots = "B", True, 1

    def touches(self):
        used_up, given = _way_back(self)
        return Touched(
            reads=[*used_up, *self.parameters],
            writes=[*given, *(B.later(self.chunk, self.micro_batch, b) for b in self.buckets)],
            frees=[*used_up, *self.dropped],
        )


@dataclass(frozen=True)
class BackwardWeights(GivesGradients):
    """The second half of a Backward: the gradients of the parameters. Nobody waits for them until the reduction."""

    label, uses_up, slots = "W", True, 1

    def touches(self):
        used_up = [B.later(self.chunk, self.micro_batch, b) for b in self.buckets]
        return Touched([*used_up, *self.added_to], self.gradients, used_up)


def _way_back(i: Backward | BackwardInput) -> tuple[list[B.BufferName], list[B.BufferName]]:
    """What a gradient uses up on its way through the buckets, and what it becomes where somebody waits for that."""
    chunk, m = i.chunk, i.micro_batch
    used_up = [B.output_gradient(chunk, m, i.last), *(B.saved(chunk, m, b) for b in i.buckets)]
    return used_up, [B.output_gradient(chunk, m, i.first - 1)] * i.gives_gradient


def _lie(places, named: Callable[[int, int], B.BufferName], slots: Slots) -> tuple[B.BufferName, ...]:
    """The buffers of places: slots, or their own."""
    if not slots:
        return tuple([named(*place) for place in places])
    lie = dict(slots)
    return tuple([lie.get(place) or named(*place) for place in places])
