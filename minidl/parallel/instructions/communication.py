"""Instructions of the communication lane: messages between stages, collectives among replicas and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from minidl.parallel.instructions.instruction import Buffer, Instruction, are_shares
from minidl.trace import COMMUNICATION


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
        return ("pipeline", "data", "tensor") if are_shares(self.gradients) else ("pipeline", "tensor")

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
