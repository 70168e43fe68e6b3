"""The vocabulary of a Program: one step of one rank, as plain data.

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

Buffer = tuple
COMPUTE, COMMUNICATION = "compute", "communication"


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
class SendActivation(Instruction):
    """Hand the output of `chunk` for `micro_batch` to the next stage.

    Pairs with that stage's RecvActivation of the same micro-batch. Does not block: the bytes go out on the
    communication lane while this rank goes on computing.
    """

    chunk: int
    micro_batch: int
    to: int  # rank
    lane = COMMUNICATION
    label = "send"

    @cached_property
    def reads(self):
        return (("output", self.chunk, self.micro_batch),)


@dataclass(frozen=True)
class RecvActivation(Instruction):
    """Take the input of `chunk` for `micro_batch` from the previous stage: pairs with its SendActivation."""

    chunk: int
    micro_batch: int
    source: int  # rank
    lane = COMMUNICATION
    label = "recv"

    @cached_property
    def writes(self):
        return (("input", self.chunk, self.micro_batch),)


@dataclass(frozen=True)
class SendGradient(Instruction):
    """Hand the gradient with respect to the input of `chunk` to the previous stage: pairs with its RecvGradient."""

    chunk: int
    micro_batch: int
    to: int  # rank
    lane = COMMUNICATION
    label = "send grad"

    @cached_property
    def reads(self):
        return (("gradient", self.chunk, self.micro_batch, -1),)


@dataclass(frozen=True)
class RecvGradient(Instruction):
    """Take the gradient with respect to the output of `chunk` from the next stage: pairs with its SendGradient."""

    chunk: int
    micro_batch: int
    last_bucket: int
    source: int  # rank
    lane = COMMUNICATION
    label = "recv grad"

    @cached_property
    def writes(self):
        return (("gradient", self.chunk, self.micro_batch, self.last_bucket),)


@dataclass(frozen=True)
class ReduceGradients(Instruction):
    """Sum the gradients of one bucket of `chunk` over the data axis. Pairs with the same one of every replica.

    It may start as soon as the backward of the bucket's blocks is done, while earlier blocks still compute theirs.
    """

    chunk: int
    bucket: int
    micro_batch: int  # the last one accumulated
    axes: ClassVar[tuple[str, ...]] = ("data",)
    collective: ClassVar[str] = "all_reduce"
    lane = COMMUNICATION
    label = "reduce"

    @cached_property
    def name(self):
        return f"{self.label} {self.bucket}"

    @cached_property
    def reads(self):
        return (("weights", self.chunk, self.bucket, self.micro_batch),)

    @cached_property
    def writes(self):
        return (("reduced", self.chunk, self.bucket),)


@dataclass(frozen=True)
class ReduceScatterGradients(ReduceGradients):
    """ReduceGradients where each replica gets its own share of the sum alone: a sharded optimizer needs no more."""

    collective = "reduce_scatter"
    label = "reduce-scatter"

    @cached_property
    def writes(self):
        return (("share", self.chunk, self.bucket),)


@dataclass(frozen=True)
class GatherParameters(Instruction):
    """Collect the parameters of one bucket of `chunk` from the replicas, each of which has updated its share."""

    chunk: int
    bucket: int
    axes: ClassVar[tuple[str, ...]] = ("data",)
    collective: ClassVar[str] = "all_gather"
    lane = COMMUNICATION
    label = "gather"

    @cached_property
    def name(self):
        return f"{self.label} {self.bucket}"

    @cached_property
    def reads(self):
        return (("updated", self.chunk, self.bucket),)


@dataclass(frozen=True)
class ReduceLoss(Instruction):
    """Sum the loss, its weight and, in evaluation, the answers and those correct over all replicas and stages.

    Every rank of those axes takes part, also the stages that have no loss: all divide by the global weight.
    """

    micro_batches: tuple[int, ...]  # whose losses this rank holds
    axes: ClassVar[tuple[str, ...]] = ("pipeline", "data")
    collective: ClassVar[str] = "all_reduce"
    lane = COMMUNICATION
    label = "reduce loss"

    @cached_property
    def reads(self):
        return tuple(("loss", m) for m in self.micro_batches)

    @cached_property
    def writes(self):
        return (("total",),)


@dataclass(frozen=True)
class ReduceNorm(Instruction):
    """Sum the squared norms of the gradients over all ranks that hold parts of them, to clip by the norm of the whole.

    These are the stages and the tensor ranks, and the replicas if each has its share alone.
    """

    gradients: tuple[Buffer, ...]
    collective: ClassVar[str] = "all_reduce"
    lane = COMMUNICATION
    label = "reduce norm"

    @cached_property
    def axes(self) -> tuple[str, ...]:
        return ("pipeline", "data", "tensor") if _are_shares(self.gradients) else ("pipeline", "tensor")

    @cached_property
    def reads(self):
        return self.gradients

    @cached_property
    def writes(self):
        return (("norm",),)

    @cached_property
    def frees(self):
        return ()  # the update reads the gradients, too


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
class ReduceParameterNorms(Instruction):
    """Sum what MeasureParameters found over all ranks that hold parts of the same parameters.

    These are the tensor ranks, and the replicas if each updates a share (`shares`).
    """

    shares: bool
    collective: ClassVar[str] = "all_reduce"
    lane = COMMUNICATION
    label = "reduce norms"

    @cached_property
    def axes(self) -> tuple[str, ...]:
        return ("data", "tensor") if self.shares else ("tensor",)

    @cached_property
    def reads(self):
        return (("squares",),)

    @cached_property
    def writes(self):
        return (("norms",),)


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
        return tuple(("updated", *g[1:]) for g in self.gradients) if _are_shares(self.gradients) else ()


def _are_shares(gradients: tuple[Buffer, ...]) -> bool:
    return any(kind == "share" for kind, *_ in gradients)


@dataclass(frozen=True)
class EndEvaluation(Instruction):
    """Take the total of the evaluated batch."""

    label = "evaluated"

    @cached_property
    def reads(self):
        return (("total",),)
