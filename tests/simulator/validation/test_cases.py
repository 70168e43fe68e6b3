"""What a row is to the simulator: its plan, its micro-batches, its model."""

from dataclasses import replace

import pytest

from simulator.stacks import Stack
from simulator.validation.cases import MANY, case, counts, plan_of, stack_of
from simulator.validation.predicted import step_seconds
from tests.simulator.validation.published import row


def test_micro_batches_that_do_not_fit_weigh_the_two_nearest_numbers_that_do():
    assert counts(300.0, 4, 1) == ((300, 1.0),) and counts(8.0, 4, 4) == ((8, 1.0),)
    for micro_batches, multiple in ((3.25, 1), (10, 4), (2, 4), (0.5, 1), (100, 4), (10**6, 1)):
        found = counts(micro_batches, 4, multiple)
        assert all(count % multiple == 0 and 0 < count <= (12 if multiple == 4 else MANY + 1) for count, _ in found)
        assert sum(weight for _, weight in found) == pytest.approx(1)
        assert sum(weight * count for count, weight in found) == pytest.approx(micro_batches)


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"interleave": 2, "layers": 4}, 24), ({}, 1100), ({"pipeline": 1, "data": 4, "zero": 3}, 1100)],
)
def test_many_micro_batches_take_what_fewer_say(tmp_path, changes, count):
    found = case(row(tmp_path, **{"global_batch": 2 * changes.get("data", 2) * count} | changes))
    assert len(found.counts) == 2
    whole = replace(found, counts=((count, 1.0),))
    assert step_seconds(found) == pytest.approx(step_seconds(whole), rel=1e-3)


def test_a_micro_batch_is_no_larger_than_a_replica_s_batch_which_is_not_empty(tmp_path):
    assert case(row(tmp_path, global_batch=6, micro_batch=16)).samples == 2 * 3
    with pytest.raises(ValueError, match="global_batch 1 is less than data=2"):
        case(row(tmp_path, global_batch=1))


def test_a_plan_has_the_axes_and_methods_of_the_columns(tmp_path):
    plan = plan_of(row(tmp_path, zero=3, recompute="selective", sequence_parallel=1, interleave=2))
    assert (plan.data, plan.tensor, plan.pipeline, plan.chunks, plan.schedule) == (2, 2, 2, 2, "interleaved")
    assert (plan.sharding, plan.recompute, plan.sequence_parallel) == ("parameters", "selective", True)
    assert plan_of(row(tmp_path, interleave="", recompute="")).schedule == "1f1b"


def test_experts_lie_inside_the_replicas_and_are_at_most_as_many(tmp_path):
    for expert, axes in ((2, (2, 4)), (8, (8, 1)), (16, (8, 1)), ("", (1, 8))):
        plan = plan_of(row(tmp_path, data=8, expert=expert))
        assert (plan.expert, plan.data) == axes
    plan = plan_of(row(tmp_path, data=4, tensor=2, expert=8, experts=8))  # whole experts on the tensor ranks too
    assert (plan.expert, plan.data, plan.tensor) == (4, 1, 2)


def test_a_stack_does_what_columns_and_tags_say(tmp_path):
    found = stack_of(row(tmp_path, data_overlap=0, precision="fp8", note="flash=0; tp_overlap=0; flash=1 later"))
    assert found.bucket_mb > 1e6 and found.products == "float8"
    assert (found.attention, found.tensor_overlap) == ("plain", False)
    assert stack_of(row(tmp_path, precision="bf16")) == Stack.load("default")
    assert stack_of(row(tmp_path, precision="tf32")).products == "tfloat32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "gpt-17"}, "unknown model 'gpt-17'"),
        ({"system": "abacus"}, "no cluster 'abacus'"),
        ({"optimizer": "hope"}, "optimizer 'hope'"),
        ({"recompute": "twice"}, "recompute 'twice'"),
        ({"zero": 4}, "zero 4 is no stage"),
        ({"devices": 9}, "are 8 ranks, not 9 devices"),
        ({"layers": ""}, "layers is not stated"),
        ({"global_batch": ""}, "global_batch is not stated"),
    ],
)
def test_what_a_row_cannot_be_is_said(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        case(row(tmp_path, **changes))
