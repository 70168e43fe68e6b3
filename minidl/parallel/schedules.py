"""Schedules: the order in which a stage runs the forwards and backwards of its micro-batches.

A schedule is a function (stage, stages, micro_batches) -> that order. All else (loading, sending, reducing, updating)
is the same for every schedule, and is added once, in program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Order = Iterator[tuple[str, int]]  # ("forward" or "backward", micro-batch)


def naive(stage: int, stages: int, micro_batches: int) -> Order:
    """One micro-batch at a time, forward through all stages and back: at any moment one stage works."""
    for m in range(micro_batches):
        yield "forward", m
        yield "backward", m


def gpipe(stage: int, stages: int, micro_batches: int) -> Order:
    """All forwards, then all backwards (Huang et al. 2019). Bubble (p-1)/(m+p-1); m micro-batches are kept alive."""
    for m in range(micro_batches):
        yield "forward", m
    for m in range(micro_batches):
        yield "backward", m


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> Order:
    """After a warm-up, one forward and one backward in turn (Narayanan et al. 2019, PipeDream-Flush).

    The bubble is GPipe's, but stage s keeps only min(p - s, m) micro-batches alive.
    """
    warm_up = min(stages - stage - 1, micro_batches)
    for m in range(warm_up):
        yield "forward", m
    for m in range(warm_up, micro_batches):
        yield "forward", m
        yield "backward", m - warm_up
    for m in range(micro_batches - warm_up, micro_batches):
        yield "backward", m


SCHEDULES: dict[str, Callable[[int, int, int], Order]] = {
    "naive": naive,
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
}
