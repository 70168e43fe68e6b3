"""The checker refuses orders that are none: of halves, of what is computed again, of chunks."""

from dataclasses import replace

import pytest

from minidl.parallel import Plan, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.layout import layout
from minidl.parallel.schedules import BACKWARD, FORWARD, SCHEDULES, Pass, Schedule
from tests.parallel.programs import caught, edited, find, training
from tests.parallel.test_schedules import SIZES

HALVES = Plan(micro_batches=2, schedule="zero-bubble")
AGAIN = Plan(micro_batches=2, recompute="full")


def without(*kinds, **fields):
    def change(step):
        return [i for i in step if not (type(i) in kinds and all(getattr(i, k) == v for k, v in fields.items()))]

    return change


def test_a_second_half_before_the_first_is_caught():
    def first(step):
        step.insert(find(step, I.BackwardInput), step.pop(find(step, I.BackwardWeights)))

    message = "rank 0: BackwardWeights(chunk=0, micro_batch=0", "reads", "which nothing writes before"
    caught(edited(training(HALVES), 0, first), *message)


def test_a_second_half_that_never_comes_is_caught():
    for m, message in ((0, "reads gradients"), (1, "never freed: later of chunk 0, micro-batch 1")):
        caught(edited(training(HALVES), 0, without(I.BackwardWeights, micro_batch=m)), "rank 0", message)


def test_halves_done_twice_are_caught():
    for kind in (I.BackwardInput, I.BackwardWeights):

        def again(step, kind=kind):
            step.insert(find(step, kind), step[find(step, kind)])

        caught(edited(training(HALVES), 0, again), f"rank 0: {kind.__name__}(chunk=0, micro_batch=0", "freed")


def test_a_second_half_after_the_update_is_caught():
    def late(step):
        step.append(step.pop(find(step, I.BackwardWeights, micro_batch=1)))

    message = "BackwardWeights(chunk=0, micro_batch=1", "reads gradients of chunk 0, bucket 0, which is freed before"
    caught(edited(training(HALVES), 0, late), *message)


def test_a_whole_backward_beside_its_halves_is_caught():
    def both(step):
        half = step[find(step, I.BackwardInput)]
        step.insert(find(step, I.BackwardInput), I.Backward(0, 0, half.first, half.last, False, half.gives_gradient))

    caught(edited(training(HALVES), 0, both), "rank 0: BackwardInput(chunk=0, micro_batch=0", "freed")


def test_a_gradient_reduced_before_the_last_second_half_is_caught():
    def early(step):
        step.insert(find(step, I.BackwardWeights, micro_batch=1), step.pop(find(step, I.ReduceGradients)))

    caught(edited(training(replace(HALVES, data=2)), 0, early), "bucket 7 lack [(0, 1)]")


def test_what_is_not_computed_again_before_its_backward_is_caught():
    message = "rank 0: Backward(chunk=0, micro_batch=0", "reads", "which nothing writes before"
    caught(edited(training(AGAIN), 0, without(I.Recompute, micro_batch=0, first=7)), *message)

    def after(step):
        step.insert(find(step, I.Backward), step.pop(find(step, I.Recompute)))
        swap = find(step, I.Recompute, first=7)
        step[swap], step[swap + 1] = step[swap + 1], step[swap]

    caught(edited(training(AGAIN), 0, after), *message)


def test_what_is_computed_again_of_another_micro_batch_or_twice_is_caught():
    def other(step):
        n = find(step, I.Recompute)
        step[n] = replace(step[n], micro_batch=1)

    caught(edited(training(AGAIN), 0, other), "rank 0: Recompute(chunk=0, micro_batch=1")

    def twice(step):
        step.insert(find(step, I.Recompute), step[find(step, I.Recompute)])

    caught(
        edited(training(AGAIN), 0, twice),
        "rank 0: Recompute(chunk=0, micro_batch=0, first=7, last=7, apart=())",
        "freed",
    )


def test_a_forward_that_keeps_what_is_then_computed_again_is_caught():
    def keep(step):
        return [replace(i, recomputed=False) if isinstance(i, I.Forward) else i for i in step]

    caught(edited(training(AGAIN), 0, keep), "rank 0: Recompute(chunk=0, micro_batch=0")

    def forget(step):
        return [replace(i, recomputed=True) if isinstance(i, I.Forward) else i for i in step]

    caught(edited(training(Plan(micro_batches=2)), 0, forget), "rank 0: Backward(chunk=0, micro_batch=0")


def under(monkeypatch, order, plan):
    """The program under `plan` if its schedule ran in this order."""
    monkeypatch.setitem(SCHEDULES, plan.schedule, Schedule(order))
    blocks = plan.pipeline * plan.chunks
    return training_program(plan, layout(plan, [1.0] * blocks, [2**20] * blocks))


TWO_CHUNKS = Plan(pipeline=2, micro_batches=4, schedule="interleaved", chunks=2)


def test_chunks_visited_in_the_wrong_order_are_caught(monkeypatch):
    right = SCHEDULES["interleaved"].order

    def last_chunk_first(stage, stages, micro_batches, chunks):
        for one in right(stage, stages, micro_batches, chunks):
            yield one._replace(chunk=chunks - 1 - one.chunk) if one.kind == FORWARD else one

    caught(under(monkeypatch, last_chunk_first, TWO_CHUNKS), "deadlock")

    def first_chunk_back_first(stage, stages, micro_batches, chunks):
        for one in right(stage, stages, micro_batches, chunks):
            yield one._replace(chunk=chunks - 1 - one.chunk) if one.kind == BACKWARD else one

    caught(
        under(monkeypatch, first_chunk_back_first, TWO_CHUNKS),
        "rank 1 expects the gradient of micro-batch 0 from rank 0",
    )


def test_1f1b_that_takes_each_micro_batch_through_all_chunks_at_once_is_caught(monkeypatch):
    """Stage 0 would wait for the second chunk's input before it gives stage 1 the next micro-batch's first."""
    right = SCHEDULES["1f1b"].order

    def order(stage, stages, micro_batches, chunks):
        for kind, m, _ in right(stage, stages, micro_batches, chunks):
            for chunk in range(chunks) if kind == FORWARD else reversed(range(chunks)):
                yield Pass(kind, m, chunk)

    caught(under(monkeypatch, order, TWO_CHUNKS), "rank 1 expects the gradient of micro-batch 0 from rank 0")


def test_a_forward_or_a_backward_left_out_or_of_a_micro_batch_that_is_none_is_caught(monkeypatch):
    for schedule in ("interleaved", "zero-bubble"):
        right = SCHEDULES[schedule].order
        plan = replace(TWO_CHUNKS, schedule=schedule, chunks=2 if schedule == "interleaved" else 1)
        for left_out in list(right(1, 2, 4, plan.chunks)):

            def order(stage, stages, micro_batches, chunks, right=right, left_out=left_out):
                passes = right(stage, stages, micro_batches, chunks)
                return (one for one in passes if stage == 0 or one != left_out)

            with monkeypatch.context() as patch:
                caught(under(patch, order, plan), "rank")


@pytest.mark.slow
def test_every_schedule_of_every_size_gives_a_program_that_passes():
    for schedule, pipeline, micro_batches, chunks in SIZES:
        for recompute in ("none", "full"):
            plan = Plan(
                pipeline=pipeline, micro_batches=micro_batches, schedule=schedule, chunks=chunks, recompute=recompute
            )
            blocks = pipeline * chunks
            check(training_program(plan, layout(plan, [1.0] * blocks, [2**20] * blocks)))
