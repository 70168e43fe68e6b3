"""Instructions that communicate: messages between the holders of chunks, collectives among replicas and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.instruction import Collective, InPlace, Receive, Send, Touched, found_once
from minidl.parallel.mesh import Axis

# Messages


@dataclass(frozen=True)
class SendActivation(Send):
    """Hand the output of `chunk` for `micro_batch` to the rank that holds the next chunk."""

    chunk: int
    micro_batch: int
    last_bucket: int
    to: int  # rank
    label, message = "send", "activation"

    @property
    def payload(self):
        return (B.activation(self.chunk, self.micro_batch, self.last_bucket),)


@dataclass(frozen=True)
class RecvActivation(Receive):
    """Take the input of `chunk` for `micro_batch` from the rank that holds the chunk before."""

    chunk: int
    micro_batch: int
    source: int  # rank
    label, message = "recv", "activation"

    @property
    def payload(self):
        return (B.activation(self.chunk, self.micro_batch, -1),)


@dataclass(frozen=True)
class SendGradient(Send):
    """Hand the gradient with respect to the input of `chunk` to the rank that holds the chunk before."""

    chunk: int
    micro_batch: int
    to: int  # rank
    label, message = "send grad", "gradient"

    @property
    def payload(self):
        return (B.output_gradient(self.chunk, self.micro_batch, -1),)


@dataclass(frozen=True)
class RecvGradient(Receive):
    """Take the gradient with respect to the output of `chunk` from the rank that holds the next chunk."""

    chunk: int
    micro_batch: int
    last_bucket: int
    source: int  # rank
    label, message = "recv grad", "gradient"

    @property
    def payload(self):
        return (B.output_gradient(self.chunk, self.micro_batch, self.last_bucket),)


# Gradients and parameters of one bucket, whose numbers timelines show


@dataclass(frozen=True)
class ReduceGradients(InPlace):
    """Sum the gradients of one bucket of `chunk` over its replicas, the ranks along `axes`, in place.

    It may start as soon as the backward of the bucket's blocks is done, while earlier blocks still compute theirs.
    slot: where the gradients lie if they are those of one micro-batch.
    """

    chunk: int
    bucket: int
    axes: tuple[str, ...] = ("data",)
    slot: B.BufferName | None = field(default=None, kw_only=True, repr=False)
    collective = "all_reduce"
    label = "reduce"

    @found_once
    def name(self):
        return _named(self.label, self.chunk, self.bucket)

    @property
    def changes(self):
        return (self.slot or B.gradients(self.chunk, self.bucket),)

    @property
    def payload(self):
        return (B.gradients(self.chunk, self.bucket),)


@dataclass(frozen=True)
class ReduceScatterGradients(ReduceGradients):
    """ReduceGradients where each replica gets its own share of the sum alone: a sharded optimizer needs no more."""

    collective = "reduce_scatter"
    label = "reduce-scatter"


@dataclass(frozen=True)
class SumParts(InPlace):
    """Sum the gradients of what is `apart` over ranks of one replica that each have a part of them, in place.

    These are the stages that hold a parameter, ("pipeline", stages), or ranks that work on parts of the same samples.
    slot: as for ReduceGradients.
    """

    apart: int
    axes: tuple[Axis, ...]
    slot: B.BufferName | None = field(default=None, kw_only=True, repr=False)
    collective = "all_reduce"
    label = "sum parts"

    @found_once
    def name(self):
        return f"{self.label} {self.apart}"

    @property
    def changes(self):
        return (self.slot or B.gradients(B.APART, self.apart),)

    @property
    def payload(self):
        return (B.gradients(B.APART, self.apart),)


@dataclass(frozen=True)
class GatherParameters(Collective):
    """Collect the parameters of one bucket of `chunk` from its replicas, each of which has updated its share.

    slot: where they lie whole until they are dropped; without one they are kept where the share lies.
    """

    chunk: int
    bucket: int
    axes: tuple[str, ...] = ("data",)
    slot: B.BufferName | None = field(default=None, kw_only=True, repr=False)
    collective = "all_gather"
    label = "gather"

    @found_once
    def name(self):
        return _named(self.label, self.chunk, self.bucket)

    @property
    def one_copy(self):
        return self.slot is None

    @property
    def payload(self):
        return (B.parameters(self.chunk, self.bucket),)

    def touches(self):
        return Touched(reads=self.payload, writes=[self.slot or B.parameters(self.chunk, self.bucket)])


def _named(label: str, chunk: int, bucket: int) -> str:
    return f"{label} {'apart ' * (chunk == B.APART)}{bucket}"


# Numbers of a batch, of a gradient, of a model


@dataclass(frozen=True)
class BroadcastStatistics(InPlace):
    """Have all replicas evaluate by the running statistics of the first, as `Run.state_dict` gives them."""

    chunk: int
    axes: tuple[str, ...] = ("data",)
    collective = "broadcast"
    label = "broadcast"

    @property
    def changes(self):
        return (B.statistics(self.chunk),)


@dataclass(frozen=True)
class ReduceLoss(Collective):
    """Sum the loss, its weight and, in evaluation, the answers and those correct over all replicas and stages.

    Every rank of those axes takes part, also the stages that have no loss: all divide by the global weight.
    """

    micro_batches: tuple[int, ...]  # whose losses this rank holds
    axes: tuple[str, ...] = ("pipeline", "data")
    collective = "all_reduce"
    label = "reduce loss"

    def touches(self):
        losses = [B.loss(m) for m in self.micro_batches]
        return Touched(reads=losses, writes=[B.TOTAL], frees=losses)


@dataclass(frozen=True)
class ReduceNorm(Collective):
    """Sum the squared norms of gradients over all ranks that hold parts of them, to clip by the norm of the whole.

    These are the stages, and the ranks of each along which parts differ (`Plan.parted`). buckets: this rank's, as pairs
    (chunk, bucket).
    """

    buckets: tuple[tuple[int, int], ...]
    axes: tuple[str, ...]
    collective = "all_reduce"
    label = "reduce norm"

    def touches(self):
        return Touched(reads=[B.gradients(*place) for place in self.buckets], writes=[B.NORM])


@dataclass(frozen=True)
class ReduceParameterNorms(InPlace):
    """Sum what MeasureParameters found over all ranks that hold parts of the same parameters, in place.

    These are the ranks along which parts differ (`Plan.parted`). buckets: this rank's.
    """

    buckets: tuple[tuple[int, int], ...]
    axes: tuple[str, ...]
    collective = "all_reduce"
    label = "reduce norms"

    @property
    def changes(self):
        return tuple(B.norms(*place) for place in self.buckets)
