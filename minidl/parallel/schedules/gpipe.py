"""Schedules of whole phases: a micro-batch, or all of them, forward through everything, and then back."""

from minidl.parallel.schedules.order import BACKWARD, FORWARD, Order, Pass


def naive(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """One micro-batch at a time, forward through all stages and back: at any moment one stage works."""
    for m in range(micro_batches):
        for chunk in range(chunks):
            yield Pass(FORWARD, m, chunk)
        for chunk in reversed(range(chunks)):
            yield Pass(BACKWARD, m, chunk)


def gpipe(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """All forwards, then all backwards (Huang et al. 2019). Bubble (p-1)/(m+p-1); m micro-batches are kept alive.

    With several chunks each one takes all micro-batches before the next (Lamy-Poirier 2022, "Breadth-First Pipeline
    Parallelism"): the bubble is divided by their number.
    """
    for chunk in range(chunks):
        for m in range(micro_batches):
            yield Pass(FORWARD, m, chunk)
    for chunk in reversed(range(chunks)):
        for m in range(micro_batches):
            yield Pass(BACKWARD, m, chunk)
