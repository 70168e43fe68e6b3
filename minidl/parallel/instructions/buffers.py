"""Buffers: the names of all that a step touches, private to a rank.

A name is a storage. What is in it is said by the place in the list: gradients are one backward's, then the sum of
several, then that of all replicas, all under one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

APART = -1  # in place of a chunk: the number beside it is not that of a bucket but of a layout.Apart
GATHERED, LOCAL = "gathered parameters", "local gradients"  # what lies in slots (slots.py)


class BufferName(NamedTuple):
    """A storage: what it holds, and of which chunk, micro-batch and bucket; None where it is not of a certain one."""

    holds: str
    chunk: int | None = None
    micro_batch: int | None = None
    bucket: int | None = None

    def __str__(self) -> str:
        if self.holds in (GATHERED, LOCAL):
            return f"slot {self.bucket} for {self.holds}"
        if self.chunk == APART:
            return f"{self.holds} of what is apart, {self.bucket}"
        if self.bucket == -1:
            what = "input" if self.holds == "activation" else "gradient of the input"
            return f"{what} of chunk {self.chunk}, micro-batch {self.micro_batch}"
        places = ("chunk", self.chunk), ("micro-batch", self.micro_batch), ("bucket", self.bucket)
        where = ", ".join(f"{name} {number}" for name, number in places if number is not None)
        return f"{self.holds} of {where}" if where else f"the {self.holds}"


named = lru_cache(1 << 16)  # lists name the same buffers again and again


@named
def of_micro_batch(buffer: BufferName, micro_batch: int) -> BufferName:
    """The same of another micro-batch."""
    return BufferName(buffer.holds, buffer.chunk, micro_batch, buffer.bucket)


# What stays from step to step


@named
def parameters(chunk: int, bucket: int) -> BufferName:
    return BufferName("parameters", chunk, bucket=bucket)


@named
def state(chunk: int, bucket: int) -> BufferName:
    """What the optimizer keeps of these parameters."""
    return BufferName("state", chunk, bucket=bucket)


@named
def statistics(chunk: int) -> BufferName:
    """What forward changes: running means and the like."""
    return BufferName("statistics", chunk)


@named
def each(named: Callable[[int, int], BufferName], chunk: int, buckets: Iterable[int]) -> tuple[BufferName, ...]:
    """What `named(chunk, bucket)` is of each of these buckets."""
    return tuple(named(chunk, bucket) for bucket in buckets)


# What a step makes and frees


@named
def activation(chunk: int, micro_batch: int, bucket: int) -> BufferName:
    """The output of a bucket; that of bucket -1 is the input of the chunk."""
    return BufferName("activation", chunk, micro_batch, bucket)


@named
def saved(chunk: int, micro_batch: int, bucket: int) -> BufferName:
    """What the forward of a bucket keeps for its backward."""
    return BufferName("saved", chunk, micro_batch, bucket)


@named
def later(chunk: int, micro_batch: int, bucket: int) -> BufferName:
    """What the first half of a backward leaves for the second, to make the gradients of parameters of."""
    return BufferName("later", chunk, micro_batch, bucket)


@named
def output_gradient(chunk: int, micro_batch: int, bucket: int) -> BufferName:
    """The gradient with respect to the output of a bucket; for bucket -1, to the input of the chunk."""
    return BufferName("output gradient", chunk, micro_batch, bucket)


@named
def gradients(chunk: int, bucket: int) -> BufferName:
    """The gradients of the parameters of a bucket, accumulated and reduced in place."""
    return BufferName("gradients", chunk, bucket=bucket)


@named
def gathered(stage: int, slot: int) -> BufferName:
    """Whole parameters of one bucket at a time, collected from the replicas, each of which holds a share."""
    return BufferName(GATHERED, stage, bucket=slot)


@named
def local_gradients(stage: int, slot: int) -> BufferName:
    """The gradients of one bucket at a time that this replica has found of one micro-batch; then the share reduced."""
    return BufferName(LOCAL, stage, bucket=slot)


@named
def target(micro_batch: int) -> BufferName:
    """The labels."""
    return BufferName("target", micro_batch=micro_batch)


@named
def loss(micro_batch: int) -> BufferName:
    """Sum and weight of the loss and, in evaluation, how many answers are right, and of how many."""
    return BufferName("loss", micro_batch=micro_batch)


@named
def norms(chunk: int, bucket: int) -> BufferName:
    """Of parameters, and of what the optimizer makes of them, squared."""
    return BufferName("norms", chunk, bucket=bucket)


TOTAL = BufferName("total")  # of the losses of the global batch
NORM = BufferName("norm")  # of the whole gradient, squared
