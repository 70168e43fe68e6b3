"""Instructions of the compute lane beside the passes: load, find the loss, add up, update."""

from __future__ import annotations

from dataclasses import dataclass

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
class AddShare(Instruction):
    """Add this replica's share of the reduced gradients of one micro-batch, which lie in a slot, to those before.

    accumulates: else they are the first of the step. The slot is free then.
    """

    chunk: int
    bucket: int
    slot: B.BufferName
    accumulates: bool
    label = "add"

    def touches(self):
        gradients = B.gradients(self.chunk, self.bucket)
        return Touched([self.slot, *[gradients] * self.accumulates], [gradients], [self.slot])


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

    clip: by the norm of the whole gradient. norms: the update takes norms of whole parameters. sharded: the buckets of
    which this replica updates its share alone; GatherParameters then follows.
    """

    buckets: tuple[tuple[int, int], ...]
    clip: bool
    norms: bool
    sharded: tuple[tuple[int, int], ...]
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


def _gradients(buckets, clip: bool) -> list[B.BufferName]:
    """What says by which gradient a parameter is updated."""
    return [*(B.gradients(*place) for place in buckets), B.TOTAL, *[B.NORM] * clip]


def _parameters(buckets) -> list[B.BufferName]:
    return [B.parameters(*place) for place in buckets]
