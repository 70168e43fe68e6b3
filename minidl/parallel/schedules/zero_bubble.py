"""Backwards in two halves: what the stage before waits for goes first, the rest fills what would be a bubble."""

from minidl.parallel.schedules.order import FORWARD, INPUT, WEIGHTS, Order, Pass


def zero_bubble(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """1F1B with halved backwards (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.2, ZB-H1).

    Stage s puts off the gradients of its weights by s micro-batches, so that those of inputs reach the first stage
    sooner; what was put off fills the drain. No stage keeps more micro-batches alive than 1F1B's first does. Where a
    forward and the halves take F, B and W, the bubble is (p - 1)(F + B - W), 1F1B's (p - 1)(F + B + W).
    """
    warm_up = min(stages - stage - 1, micro_batches)
    for m in range(micro_batches + warm_up):
        if m < micro_batches:
            yield Pass(FORWARD, m)
        if m >= warm_up:
            yield Pass(INPUT, m - warm_up)
            if m - warm_up >= stage:
                yield Pass(WEIGHTS, m - warm_up - stage)
    for m in range(max(micro_batches - stage, 0), micro_batches):
        yield Pass(WEIGHTS, m)
