"""The bytes of each buffer, and in which storage they lie: looked up in profile and layout, never stated."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from minidl.kernels.meta import MetaArray
from minidl.parallel.block_profile import BlockProfile, Kept
from minidl.parallel.blocks import several
from minidl.parallel.bucket_parameters import BucketParameters
from minidl.parallel.instructions import BufferName
from minidl.parallel.instructions.buffers import GATHERED, LOCAL
from minidl.parallel.totals import Totals

FLOAT64 = 8  # bytes of the sums that ranks reduce


class BufferBytes:
    """Those of one rank, for all that hold the same buffers."""

    def __init__(self, parameters: BucketParameters):
        self.parameters, self.plan = parameters, parameters.plan
        self.layout, self.profile = parameters.layout, parameters.profile
        self._known: dict[BufferName, dict[Hashable, int]] = {}

    def of(self, buffer: BufferName) -> dict[Hashable, int]:
        """The storages in which a buffer lies, and the bytes of each; what two buffers share has the same key."""
        if buffer not in self._known:
            self._known[buffer] = BYTES[buffer.holds](self, buffer)
        return self._known[buffer]

    def moved(self, b: BufferName) -> int:
        """What a message or a collective moves of a buffer: of what is sharded the whole, before or after.

        Of a view of a larger storage a message has the view alone.
        """
        if b.holds in ("parameters", "gradients"):
            return self.parameters.flat((b.chunk, b.bucket)).nbytes
        if b.holds in ("activation", "output gradient"):
            arrays = self._arrays(self._end(b.chunk, b.bucket))
            return sum(a.nbytes for a in arrays if b.holds == "activation" or a.dtype.kind == "f")
        return sum(self.of(b).values())

    def is_full_precision(self, buffer: BufferName) -> bool:
        """Whether it is the same in training of lower precision: whole numbers, statistics, sums, what updates keep."""
        if buffer.holds == "activation" and self._end(buffer.chunk, buffer.bucket) == 0:
            return self.profile.input.dtype.kind in "iu"
        return buffer.holds in ("state", "statistics", "target", "total", "norm", "norms")

    # Activations

    def _activation(self, b: BufferName) -> dict[Hashable, int]:
        place, found = self._end(b.chunk, b.bucket), {}
        for which in range(len(self._arrays(place))):
            found |= self._border(b, place, which)
        return found

    def _border(self, b: BufferName, place: int, which: int) -> dict[Hashable, int]:
        """An array that block `place` of the chain takes: that of a block before, where those between give views."""
        start = self.layout.chunks[b.chunk][0]
        while place > start and (before := self.profile.blocks[place - 1].passed[which]) is not None:
            place, which = place - 1, before
        array = self._arrays(place)[which]
        nbytes = array.nbytes if place == start else array.storage.nbytes  # what a chunk is given has no gaps
        return {("activation", b.chunk, b.micro_batch, place, which): nbytes}

    def _output_gradient(self, b: BufferName) -> dict[Hashable, int]:
        return {b: self.moved(b)}

    def _saved(self, b: BufferName) -> dict[Hashable, int]:
        return self._kept(b, lambda block: block.saved)

    def _later(self, b: BufferName) -> dict[Hashable, int]:
        return self._kept(b, lambda block: block.halves.later)

    def _kept(self, b: BufferName, kept: Callable[[BlockProfile], Kept]) -> dict[Hashable, int]:
        found: dict[Hashable, int] = {}
        start, end = self.layout.buckets[b.chunk][b.bucket]
        for place in range(max(start, self.layout.first_trained), end):
            for array, nbytes in kept(self.profile.blocks[place]):
                name, which = array if isinstance(array, tuple) else (array, 0)
                if name in ("input", "output"):
                    found |= self._border(b, place + (name == "output"), which)
                else:
                    found[b.chunk, b.micro_batch, place, name] = nbytes
        return found

    def _end(self, chunk: int, bucket: int) -> int:
        """The block before which the output of a bucket lies; of bucket -1, the input of the chunk."""
        return self.layout.chunks[chunk][0] if bucket < 0 else self.layout.buckets[chunk][bucket][1]

    def _arrays(self, place: int) -> tuple[MetaArray, ...]:
        """What block `place` of the chain takes, or the loss."""
        return several(self.profile.blocks[place - 1].output if place else self.profile.input)

    # Parameters, and what training keeps of them

    def _parameters(self, b: BufferName) -> dict[Hashable, int]:
        place, own = (b.chunk, b.bucket), self.parameters
        if own.shards(place) > 1 and self.layout.is_trained(*place):
            frozen = sum(p.nbytes for p in own.of(place) if not p.trained)
            return {b: own.flat(place, share=place in own.dropped).nbytes, (b, "frozen"): frozen}
        return {b: sum(p.nbytes for p in own.of(place))}

    def _gradients(self, b: BufferName) -> dict[Hashable, int]:
        place = b.chunk, b.bucket
        return {b: self.parameters.flat(place, share=place in self.parameters.slots).nbytes}

    def _slot(self, b: BufferName) -> dict[Hashable, int]:
        """A slot has room for the largest bucket that comes there."""
        stage, slot, own = b.chunk, b.bucket, self.parameters
        return {b: max(own.flat(p).nbytes for p in self.layout.places(stage) if own.slots.get(p) == slot)}

    def _state(self, b: BufferName) -> dict[Hashable, int]:
        share = self.parameters.share((b.chunk, b.bucket), 0)
        return {b: round(sum(p.state_bytes * part for p, part in share))}

    def _statistics(self, b: BufferName) -> dict[Hashable, int]:
        return {b: sum(block.statistics_bytes for block in self.profile.blocks[slice(*self.layout.chunks[b.chunk])])}

    def _norms(self, b: BufferName) -> dict[Hashable, int]:
        return {b: FLOAT64 * sum(p.squares for p in self.parameters.of((b.chunk, b.bucket)))}


BYTES: dict[str, Callable[[BufferBytes, BufferName], dict[Hashable, int]]] = {
    "parameters": BufferBytes._parameters,
    "state": BufferBytes._state,
    "statistics": BufferBytes._statistics,
    "activation": BufferBytes._activation,
    "saved": BufferBytes._saved,
    "later": BufferBytes._later,
    "output gradient": BufferBytes._output_gradient,
    "gradients": BufferBytes._gradients,
    GATHERED: BufferBytes._slot,
    LOCAL: BufferBytes._slot,
    "target": lambda own, b: {b: own.profile.target.nbytes},
    "loss": lambda own, b: {},  # numbers, no array
    "total": lambda own, b: {b: FLOAT64 * len(Totals._fields)},
    "norm": lambda own, b: {b: FLOAT64},
    "norms": BufferBytes._norms,
}
