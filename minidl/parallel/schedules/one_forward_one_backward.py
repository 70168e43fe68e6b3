"""One forward, one backward in turn."""

from minidl.parallel.schedules.order import BACKWARD, FORWARD, Order, Pass


def one_forward_one_backward(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """After a warm-up, one forward and one backward in turn (Narayanan et al. 2019, PipeDream-Flush).

    The bubble is GPipe's, but stage s keeps only min(p - s, m) micro-batches alive.
    """
    warm_up = min(stages - stage - 1, micro_batches)
    for m in range(warm_up):
        yield Pass(FORWARD, m)
    for m in range(warm_up, micro_batches):
        yield Pass(FORWARD, m)
        yield Pass(BACKWARD, m - warm_up)
    for m in range(micro_batches - warm_up, micro_batches):
        yield Pass(BACKWARD, m)
