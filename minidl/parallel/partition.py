"""Cutting a chain of blocks: into runs of about equal cost, and a run's blocks into buckets of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf

Range = tuple[int, int]  # first block, and the one after the last


def partition(costs: Sequence[float], runs: int) -> tuple[Range, ...]:
    """Cut a chain of blocks into so many runs such that the costliest run is as cheap as possible."""
    prefix = [0.0, *accumulate(costs)]
    low, high = max(max(costs), prefix[-1] / runs), prefix[-1]
    enough, next_limit = inf, -inf  # from the first on limits are high enough, those below the second are too low
    for _ in range(50):  # bisection: the limit is then exact to 2^-50 of the total
        middle = (low + high) / 2
        if next_limit <= middle < enough:
            filled = _fill(prefix, runs, middle)
            if len(filled) <= runs:  # and alike by any limit down to the fullest run
                enough = min(middle, max(prefix[end] - prefix[start] for start, end in filled))
            else:  # and alike by any limit below that which lets one run have a block more
                more = (prefix[end + 1] - prefix[start] for start, end in filled if end < len(costs))
                next_limit = min(cost for cost in more if cost > middle)
        if middle >= enough:
            high = middle
        else:
            low = middle
    return tuple(_fill(prefix, runs, high))


def _fill(prefix: Sequence[float], count: int, limit: float) -> list[Range]:
    """Runs filled up to `limit`, but leaving a block for each of those to come; too many if the limit is too low."""
    blocks, runs, start = len(prefix) - 1, [], 0
    for end in range(1, blocks + 1):
        to_come = count - len(runs) - 1
        full = end < blocks and prefix[end + 1] - prefix[start] > limit
        if end == blocks or full or blocks - end <= to_come:
            runs.append((start, end))
            start = end
    return runs


def buckets(parameter_bytes: Sequence[int], chunk: Range, bucket_bytes: float) -> tuple[Range, ...]:
    """Cut the blocks of `chunk` into runs of at least `bucket_bytes` of parameters, from the last block back.

    Backward begins at the last block, so the last bucket is ready first; the first takes what is left over.
    """
    runs, end, size = [], chunk[1], 0
    first = next((block for block in range(*chunk) if parameter_bytes[block]), chunk[1])
    for block in range(chunk[1] - 1, chunk[0] - 1, -1):
        size += parameter_bytes[block]
        if size >= bucket_bytes and first < block:
            runs.append((block, end))
            end, size = block, 0
    runs.append((chunk[0], end))
    return tuple(reversed(runs))
