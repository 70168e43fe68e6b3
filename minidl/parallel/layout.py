"""Cutting a chain of blocks: into stages of about equal cost, and a stage's blocks into buckets of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from minidl.parallel.plan import Plan

Range = tuple[int, int]  # first block, and the one after the last


@dataclass(frozen=True)
class Layout:
    """Which blocks of the chain each stage holds, and which of those make up each of its buckets, first to last."""

    stages: tuple[Range, ...]
    buckets: tuple[tuple[Range, ...], ...]


def partition(costs: Sequence[float], stages: int) -> tuple[Range, ...]:
    """Cut a chain of blocks into `stages` runs such that the costliest run is as cheap as possible.

    ValueError if there are fewer blocks than stages.
    """
    blocks = len(costs)
    if blocks < stages:
        raise ValueError(f"pipeline={stages} needs at least {stages} blocks, the model has {blocks}")
    prefix = [0.0, *accumulate(costs)]
    low, high = max(max(costs), prefix[-1] / stages), prefix[-1]
    for _ in range(50):  # bisection: the limit is then exact to 2^-50 of the total
        middle = (low + high) / 2
        if len(_fill(prefix, stages, middle)) <= stages:
            high = middle
        else:
            low = middle
    return tuple(_fill(prefix, stages, high))


def _fill(prefix: Sequence[float], stages: int, limit: float) -> list[Range]:
    """Runs filled up to `limit`, but leaving a block for each stage to come; too many runs if the limit is too low."""
    blocks, runs, start = len(prefix) - 1, [], 0
    for end in range(1, blocks + 1):
        stages_to_come = stages - len(runs) - 1
        full = end < blocks and prefix[end + 1] - prefix[start] > limit
        if end == blocks or full or blocks - end <= stages_to_come:
            runs.append((start, end))
            start = end
    return runs


def buckets(parameter_bytes: Sequence[int], stage: Range, bucket_bytes: float) -> tuple[Range, ...]:
    """Cut the blocks of `stage` into runs of at least `bucket_bytes` of parameters, from the last block back.

    Backward begins at the last block, so the last bucket is ready first; the first takes what is left over.
    """
    runs, end, size = [], stage[1], 0
    for block in range(stage[1] - 1, stage[0] - 1, -1):
        size += parameter_bytes[block]
        if size >= bucket_bytes and any(parameter_bytes[stage[0] : block]):
            runs.append((block, end))
            end, size = block, 0
    runs.append((stage[0], end))
    return tuple(reversed(runs))


SHARE_ELEMENTS = 16  # of which a share is a multiple: a cache line of float32


def share_elements(elements: int, shares: int) -> int:
    """The elements of each of `shares` equal shares that together hold `elements`; the last ones may be empty.

    With one share, too, whole cache lines.
    """
    return -(-elements // (shares * SHARE_ELEMENTS)) * SHARE_ELEMENTS


def layout(plan: Plan, costs: Sequence[float], parameter_bytes: Sequence[int]) -> Layout:
    """The layout of a chain whose blocks cost `costs` and hold `parameter_bytes`."""
    stages = partition(costs, plan.pipeline)
    if plan.data == 1:  # nothing is reduced
        return Layout(stages, tuple((stage,) for stage in stages))
    return Layout(stages, tuple(buckets(parameter_bytes, stage, plan.bucket_mb * 2**20) for stage in stages))
