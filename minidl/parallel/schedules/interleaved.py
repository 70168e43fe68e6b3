"""One forward, one backward in turn, between several chunks of a stage."""

from minidl.parallel.schedules.order import BACKWARD, FORWARD, Order, Pass


def interleaved(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """1F1B in which a stage holds v chunks, p apart in the chain (Narayanan et al. 2021, section 2.2, figure 4).

    Micro-batches pass in rounds of p: a round goes through a stage's first chunk, then its second, and so on, and comes
    back through them in reverse. The bubble is 1F1B's divided by v, there are v times as many messages, and somewhat
    more micro-batches are kept alive.
    """

    def forward(k: int) -> Pass:
        """The k-th of the stage, from 0."""
        turn, place = divmod(k, stages * chunks)
        return Pass(FORWARD, turn * stages + place % stages, place // stages)

    def backward(k: int) -> Pass:
        return Pass(BACKWARD, forward(k).micro_batch, chunks - 1 - forward(k).chunk)

    count = micro_batches * chunks
    warm_up = min(2 * (stages - stage - 1) + (chunks - 1) * stages, count)
    for k in range(warm_up):
        yield forward(k)
    for k in range(warm_up, count):
        yield forward(k)
        yield backward(k - warm_up)
    for k in range(count - warm_up, count):
        yield backward(k)
