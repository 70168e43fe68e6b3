"""Cutting a chain of blocks: into chunks of about equal cost, and a chunk's blocks into buckets of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from minidl.parallel.plan import Plan

Range = tuple[int, int]  # first block, and the one after the last


@dataclass(frozen=True)
class Layout:
    """Where the blocks of the chain are, and how far the gradient goes back.

    chunks: the blocks of each chunk, in the order of the chain. buckets: for each chunk, the blocks of each of its
    buckets, first to last. stages: the chunks that each stage holds, in order: a stage is the ranks of one pipeline
    coordinate. first_trained: the first block to which the gradient goes back; the buckets and chunks before have no
    backward.
    """

    chunks: tuple[Range, ...]
    buckets: tuple[tuple[Range, ...], ...]
    stages: tuple[tuple[int, ...], ...]
    first_trained: int = 0

    def __post_init__(self):
        for chunks in self.stages:
            for one, other in pairwise(chunks):
                if other == one + 1:
                    raise ValueError(
                        f"a stage holds the chunks {one} and {other}: neighbours are one chunk, or on two stages"
                    )

    def stage_of(self, chunk: int) -> int:
        """The stage that holds `chunk`."""
        return next(stage for stage, chunks in enumerate(self.stages) if chunk in chunks)

    def last_bucket(self, chunk: int) -> int:
        return len(self.buckets[chunk]) - 1

    def trained_buckets(self, chunk: int) -> range:
        """The buckets of `chunk` to which the gradient goes back: none, all, or the later ones."""
        ends = [end for _, end in self.buckets[chunk]]
        return range(sum(end <= self.first_trained for end in ends), len(ends))

    def trained(self, stage: int) -> tuple[tuple[int, int], ...]:
        """The trained buckets of all chunks of a stage, as pairs (chunk, bucket)."""
        return tuple((chunk, b) for chunk in self.stages[stage] for b in self.trained_buckets(chunk))

    def wants_gradient(self, chunk: int) -> bool:
        """Whether anything before `chunk` waits for the gradient of its input."""
        return self.chunks[chunk][0] > self.first_trained


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


def buckets(parameter_bytes: Sequence[int], chunk: Range, bucket_bytes: float) -> tuple[Range, ...]:
    """Cut the blocks of `chunk` into runs of at least `bucket_bytes` of parameters, from the last block back.

    Backward begins at the last block, so the last bucket is ready first; the first takes what is left over.
    """
    runs, end, size = [], chunk[1], 0
    for block in range(chunk[1] - 1, chunk[0] - 1, -1):
        size += parameter_bytes[block]
        if size >= bucket_bytes and any(parameter_bytes[chunk[0] : block]):
            runs.append((block, end))
            end, size = block, 0
    runs.append((chunk[0], end))
    return tuple(reversed(runs))


SHARE_ELEMENTS = 16  # of which a share is a multiple: a cache line of float32


def share_elements(elements: int, shares: int) -> int:
    """The elements of each of `shares` equal shares that together hold `elements`; the last ones may be empty.

    With one share, too, whole cache lines.
    """
    return -(-elements // (shares * SHARE_ELEMENTS)) * SHARE_ELEMENTS


def flat_elements(elements: int, shares: int) -> int:
    """The elements of a flat buffer for `elements` that is cut into `shares` equal shares."""
    return shares * share_elements(elements, shares)


def share_of(elements: int, share: int, shares: int) -> slice:
    """Where `share` lies in a flat buffer for `elements`."""
    length = share_elements(elements, shares)
    return slice(share * length, (share + 1) * length)


def parts(sizes: Sequence[int], share: int, shares: int) -> list[slice]:
    """Of arrays with these sizes, one after the other in a flat buffer, the elements that belong to `share`."""
    own, found, start = share_of(sum(sizes), share, shares), [], 0
    for size in sizes:
        low, high = (min(max(0, border - start), size) for border in (own.start, own.stop))
        found.append(slice(low, high))
        start += size
    return found


def layout(plan: Plan, costs: Sequence[float], parameter_bytes: Sequence[int], first_trained: int = 0) -> Layout:
    """The layout of a chain whose blocks cost `costs` and hold `parameter_bytes`: a chunk for each stage.

    No bucket holds parameters before `first_trained`, which have no gradients, and others.
    """
    chunks = partition(costs, plan.pipeline)
    cut = []
    for start, end in chunks:
        border = min(max(start, first_trained), end) if any(parameter_bytes[start:first_trained]) else start
        halves = [half for half in ((start, border), (border, end)) if half[0] < half[1]]
        cut.append(tuple(b for half in halves for b in buckets(parameter_bytes, half, plan.bucket_mb * 2**20)))
    return Layout(chunks, tuple(cut), tuple((chunk,) for chunk in range(len(chunks))), first_trained)
