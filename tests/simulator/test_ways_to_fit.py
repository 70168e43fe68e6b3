"""memory.py, ways_to_fit.py: what a stack has beside arrays, and plans that hold less, found by trying."""

from dataclasses import replace

import pytest

from minidl import models
from minidl.parallel import Plan
from simulator import simulate
from simulator.report import remedy
from simulator.stacks import Stack
from tests.simulator.hand_made import cluster

DEFAULT = Stack.load("default")


def predicted(plan, memory_bytes=1e9, **changes):
    where = replace(cluster(), memory_bytes=memory_bytes)
    build = lambda mesh: models.gpt(4, 32, 4, 64, 16, mesh)  # noqa: E731
    return simulate(build, plan, where, 32, stack=replace(DEFAULT, **changes))


def test_a_stack_has_a_workspace_and_memory_that_no_array_can_use():
    plain, more = predicted(Plan()), predicted(Plan(), workspace_gb=0.25, fragmentation=0.2)
    assert more.memory == plain.memory
    assert more.memory_bytes == pytest.approx(plain.memory_bytes / 0.8 + 0.25e9)
    assert "beside arrays" in str(more) and "beside arrays" not in str(plain)


def test_gradients_that_are_kept_in_float32_take_twice_the_bytes():
    plan = Plan(precision="bfloat16")
    half, full = (predicted(plan, gradients=dtype).memory[0] for dtype in ("", "float32"))
    assert full == replace(half, gradients=2 * half.gradients)


def test_a_loss_in_float32_has_copies_of_the_logits_and_their_gradient():
    plan = Plan(precision="bfloat16")
    half, full = (predicted(plan, loss=dtype) for dtype in ("", "float32"))
    logits = 32 * 16 * 64
    assert full.memory[0].activations == half.memory[0].activations + 2 * 4 * logits
    kernels = [predicted(plan, loss=dtype).program.costs.profile.loss for dtype in ("", "float32")]
    assert kernels[0] == kernels[1] and predicted(Plan(), loss="float32").memory == predicted(Plan()).memory


def test_what_fits_needs_no_way():
    assert predicted(Plan()).ways_to_fit == ()


def test_each_way_is_a_plan_that_fits_and_needs_what_is_said():
    plan = Plan(data=4, bucket_mb=0.01)
    whole = predicted(plan).memory_bytes
    p = predicted(plan, 0.8 * whole)
    assert not p.fits and len(p.ways_to_fit) >= 2
    for way in p.ways_to_fit:
        there = predicted(way.plan)
        assert there.memory_bytes == way.memory_bytes <= 0.8 * whole
        assert way.plan.workers == plan.workers
        assert str(way) in remedy(p)
    assert {"recompute", "micro_batches"} <= {name for way in p.ways_to_fit for name in way.changes}


def test_what_a_stack_does_otherwise_than_plans_say_is_no_way():
    plan = Plan(data=4, bucket_mb=0.01)
    p = predicted(plan, 0.8 * predicted(plan).memory_bytes, recompute="none")
    assert p.ways_to_fit and not any("recompute" in way.changes for way in p.ways_to_fit)


def test_the_least_change_of_a_kind_is_told():
    plan = Plan(data=4)
    whole, half = (predicted(replace(plan, micro_batches=m)).memory_bytes for m in (1, 2))
    way = next(way for way in predicted(plan, (whole + half) / 2).ways_to_fit if "micro_batches" in way.changes)
    assert way.changes == {"micro_batches": 2}


def test_changes_that_are_not_enough_by_themselves_are_put_together():
    plan = Plan(data=2, micro_batches=8, bucket_mb=0.01)
    sizes = [predicted(replace(plan, **c)).memory_bytes for c in ({"recompute": "full"}, {"micro_batches": 16})]
    least = predicted(replace(plan, recompute="full", micro_batches=16, sharding="parameters")).memory_bytes
    assert least < min(sizes)
    (way,) = predicted(plan, least).ways_to_fit
    assert len(way.changes) >= 2 and predicted(way.plan).memory_bytes == way.memory_bytes <= least


def test_where_nothing_helps_it_is_said():
    p = predicted(Plan(), 1.0)
    assert p.ways_to_fit == () and remedy(p).startswith("No change of the plan")
