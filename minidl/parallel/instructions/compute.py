"""Instructions of the compute lane: load, run the blocks forward and backward, update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.instruction import Instruction, Touched


@dataclass(frozen=True)
class LoadInput(Instruction):
    """Take this replica's inputs of `micro_batch` from the data set: the work of who holds the first chunk."""

    micro_batch: int
    label = "input"

    def touches(self):
        return Touched(writes=[B.activation(0, self.micro_batch, -1)])


@dataclass(frozen=True)
class LoadTarget(Instruction):
    """Take this replica's labels of `micro_batch` from the data set: the work of who holds the last chunk."""

    micro_batch: int
    label = "target"

    def touches(self):
        return Touched(writes=[B.target(self.micro_batch)])


@dataclass(frozen=True)
class Forward(Instruction):
    """Run the buckets first to last of `chunk` on `micro_batch`, keeping what backward needs.

    trained: the first bucket of the chunk that has a backward; those before keep nothing.
    """

    chunk: int
    micro_batch: int
    first: int
    last: int
    trained: int
    label, slots = "F", 1

    @cached_property
    def buckets(self) -> range:
        return range(self.first, self.last + 1)

    def touches(self):
        chunk, m = self.chunk, self.micro_batch
        statistics = B.statistics(chunk)
        kept = [B.saved(chunk, m, b) for b in self.buckets if b >= self.trained]
        x = B.activation(chunk, m, self.first - 1)
        return Touched(
            reads=[x, *B.each(B.parameters, chunk, self.buckets), statistics],
            writes=[B.activation(chunk, m, self.last), *kept, statistics],
            frees=[x],
        )


@dataclass(frozen=True)
class Infer(Instruction):
    """Run all buckets of `chunk` on `micro_batch`, keeping nothing: evaluation."""

    chunk: int
    micro_batch: int
    last_bucket: int
    label, slots = "infer", 1

    def touches(self):
        chunk, x = self.chunk, B.activation(self.chunk, self.micro_batch, -1)
        model = [*B.each(B.parameters, chunk, range(self.last_bucket + 1)), B.statistics(chunk)]
        return Touched([x, *model], [B.activation(chunk, self.micro_batch, self.last_bucket)], [x])


@dataclass(frozen=True)
class Loss(Instruction):
    """Sum and weight of the loss of `micro_batch`; if it is `trained`, the gradient of the sum by the chunk's output.

    The sum is not divided here: the weight of the global batch is known only when every rank has reported its own.
    """

    chunk: int
    micro_batch: int
    last_bucket: int
    trained: bool
    label = "loss"

    def touches(self):
        place = self.chunk, self.micro_batch, self.last_bucket
        read = B.activation(*place), B.target(self.micro_batch)
        return Touched(read, [B.loss(self.micro_batch), *[B.output_gradient(*place)] * self.trained], read)


@dataclass(frozen=True)
class Score(Instruction):
    """Loss and number of correct answers of `micro_batch`, without a gradient: evaluation."""

    chunk: int
    micro_batch: int
    last_bucket: int
    label = "score"

    def touches(self):
        read = B.activation(self.chunk, self.micro_batch, self.last_bucket), B.target(self.micro_batch)
        return Touched(read, [B.loss(self.micro_batch)], read)


@dataclass(frozen=True)
class Backward(Instruction):
    """Bring the gradient of `micro_batch` back through the buckets first to last (last one first) of `chunk`.

    accumulates: adds to the gradients that are there; else they are the first of the step. gives_gradient: somebody
    waits for the gradient of what the first bucket takes.
    """

    chunk: int
    micro_batch: int
    first: int
    last: int
    accumulates: bool
    gives_gradient: bool
    label, uses_up, slots = "B", True, 2

    @cached_property
    def buckets(self) -> range:
        return range(self.first, self.last + 1)

    def touches(self):
        chunk, m = self.chunk, self.micro_batch
        gradients = B.each(B.gradients, chunk, self.buckets)
        used_up = [B.output_gradient(chunk, m, self.last), *(B.saved(chunk, m, b) for b in self.buckets)]
        given = [B.output_gradient(chunk, m, self.first - 1)] * self.gives_gradient
        return Touched(
            reads=[*used_up, *B.each(B.parameters, chunk, self.buckets), *gradients * self.accumulates],
            writes=[*given, *gradients],
            frees=used_up,
        )


@dataclass(frozen=True)
class MeasureParameters(Instruction):
    """Find the sums of squares that the optimizer needs, of this rank's parts of its parameters and of their updates.

    For optimizers whose update takes norms, LARS and LAMB; moments that those depend on move on here. buckets: pairs
    (chunk, bucket). clip: as for OptimizerStep.
    """

    buckets: tuple[tuple[int, int], ...]
    clip: bool
    label = "measure"

    def touches(self):
        state, norms = ([held(*place) for place in self.buckets] for held in (B.state, B.norms))
        return Touched([*_gradients(self.buckets, self.clip), *_parameters(self.buckets), *state], [*norms, *state])


@dataclass(frozen=True)
class OptimizerStep(Instruction):
    """Update the parameters of these buckets, pairs (chunk, bucket), from their gradients over the global weight.

    clip: by the norm of the whole gradient. norms: the update takes norms of whole parameters. sharded: this replica
    updates its share of each bucket alone; GatherParameters then follows.
    """

    buckets: tuple[tuple[int, int], ...]
    clip: bool
    norms: bool
    sharded: bool
    label = "update"

    def touches(self):
        used_up = [*_gradients(self.buckets, self.clip), *[B.norms(*place) for place in self.buckets if self.norms]]
        changed = [*_parameters(self.buckets), *(B.state(*place) for place in self.buckets)]
        return Touched([*used_up, *changed], changed, used_up)


@dataclass(frozen=True)
class EndEvaluation(Instruction):
    """Take the total of the evaluated batch."""

    label = "evaluated"

    def touches(self):
        return Touched(reads=[B.TOTAL], frees=[B.TOTAL])


def _gradients(buckets, clip: bool) -> list[B.Buffer]:
    """What says by which gradient a parameter is updated."""
    return [*(B.gradients(*place) for place in buckets), B.TOTAL, *[B.NORM] * clip]


def _parameters(buckets) -> list[B.Buffer]:
    return [B.parameters(*place) for place in buckets]
