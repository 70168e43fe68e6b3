"""Instructions of the compute lane: load, run the blocks forward and backward, update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from minidl.parallel.instructions.instruction import Buffer, Instruction, are_shares


@dataclass(frozen=True)
class LoadInput(Instruction):
    """Take this replica's inputs of `micro_batch` from the data set: the first stage's work."""

    micro_batch: int
    label = "input"

    @cached_property
    def writes(self):
        return (("input", 0, self.micro_batch),)


@dataclass(frozen=True)
class LoadTarget(Instruction):
    """Take this replica's labels of `micro_batch` from the data set: the last stage's work."""

    micro_batch: int
    label = "target"

    @cached_property
    def writes(self):
        return (("target", self.micro_batch),)


@dataclass(frozen=True)
class Forward(Instruction):
    """Run the blocks of `chunk` on `micro_batch`, keeping what backward needs."""

    chunk: int
    micro_batch: int
    label = "F"

    @cached_property
    def reads(self):
        return (("input", self.chunk, self.micro_batch),)

    @cached_property
    def writes(self):
        return (("output", self.chunk, self.micro_batch), ("saved", self.chunk, self.micro_batch))


@dataclass(frozen=True)
class Infer(Instruction):
    """Run the blocks of `chunk` on `micro_batch`, keeping nothing: evaluation."""

    chunk: int
    micro_batch: int
    label = "infer"

    @cached_property
    def reads(self):
        return (("input", self.chunk, self.micro_batch),)

    @cached_property
    def writes(self):
        return (("output", self.chunk, self.micro_batch),)


@dataclass(frozen=True)
class Loss(Instruction):
    """Sum and weight of the loss of `micro_batch`, and the gradient of the sum with respect to the output of `chunk`.

    The sum is not divided here: the weight of the global batch is known only when every rank has reported its own.
    """

    chunk: int
    micro_batch: int
    last_bucket: int
    label = "loss"

    @cached_property
    def reads(self):
        return (("output", self.chunk, self.micro_batch), ("target", self.micro_batch))

    @cached_property
    def writes(self):
        return (("gradient", self.chunk, self.micro_batch, self.last_bucket), ("loss", self.micro_batch))


@dataclass(frozen=True)
class Score(Instruction):
    """Loss and number of correct answers of `micro_batch`, without a gradient: evaluation."""

    chunk: int
    micro_batch: int
    label = "score"

    @cached_property
    def reads(self):
        return (("output", self.chunk, self.micro_batch), ("target", self.micro_batch))

    @cached_property
    def writes(self):
        return (("loss", self.micro_batch),)


@dataclass(frozen=True)
class Backward(Instruction):
    """Bring the gradient of `micro_batch` back through the buckets first to last (last one first) of `chunk`.

    Adds to the gradients that were accumulated up to micro-batch `after`; None means that this one is the first.
    """

    chunk: int
    micro_batch: int
    first: int
    last: int
    after: int | None
    label = "B"

    @cached_property
    def buckets(self) -> range:
        return range(self.first, self.last + 1)

    @cached_property
    def reads(self):
        gradient = ("gradient", self.chunk, self.micro_batch, self.last)
        return (("saved", self.chunk, self.micro_batch), gradient, *self._weights(self.after))

    @cached_property
    def writes(self):
        gradient = ("gradient", self.chunk, self.micro_batch, self.first - 1)
        wanted = self.first > 0 or self.chunk > 0  # nobody wants the gradient of the data
        return (*((gradient,) if wanted else ()), *self._weights(self.micro_batch))

    @cached_property
    def frees(self):
        return self.reads if self.first == 0 else self.reads[1:]

    def _weights(self, micro_batch):
        return () if micro_batch is None else tuple(("weights", self.chunk, b, micro_batch) for b in self.buckets)


@dataclass(frozen=True)
class MeasureParameters(Instruction):
    """Find the sums of squares that the optimizer needs, of this rank's parts of its parameters and of their updates.

    For optimizers whose update takes norms, LARS and LAMB; moments that those depend on move on here.
    """

    gradients: tuple[Buffer, ...]
    clip: bool
    label = "measure"

    @cached_property
    def reads(self):
        return (*self.gradients, ("total",), *((("norm",),) if self.clip else ()))

    @cached_property
    def writes(self):
        return (("squares",),)

    @cached_property
    def frees(self):
        return ()  # the update reads the same


@dataclass(frozen=True)
class OptimizerStep(Instruction):
    """Update the parameters of this rank from `gradients`, divided by the global weight (and clipped, if `clip`).

    Where the gradients are shares, only the same share of the parameters is updated; GatherParameters then follows.
    norms: the update takes norms of whole parameters, as ReduceParameterNorms gives them.
    """

    gradients: tuple[Buffer, ...]
    clip: bool
    norms: bool
    label = "update"

    @cached_property
    def reads(self):
        taken = (("norm",), self.clip), (("norms",), self.norms)
        return (*self.gradients, ("total",), *(buffer for buffer, is_taken in taken if is_taken))

    @cached_property
    def writes(self):
        return tuple(("updated", *g[1:]) for g in self.gradients) if are_shares(self.gradients) else ()


@dataclass(frozen=True)
class EndEvaluation(Instruction):
    """Take the total of the evaluated batch."""

    label = "evaluated"

    @cached_property
    def reads(self):
        return (("total",),)
