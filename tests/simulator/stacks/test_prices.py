"""prices.py: what a stack changes of the times of a program beside its kernels."""

from dataclasses import replace

import pytest

from minidl import models
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from simulator import simulate
from simulator.stacks import Stack
from tests.simulator.hand_made import PerCall, cluster, links

DEFAULT = Stack.load("default")
FREE = PerCall(0.0)
MLP = models.builder("mlp-digits")


def gpt(mesh):
    return models.gpt(2, 32, 4, 64, 16, mesh)


def step(plan, compute=FREE, network=None, build=gpt, **changes):
    return simulate(build, plan, cluster(compute, network), 8, stack=replace(DEFAULT, **changes))


def events(prediction, name):
    return [e.end - e.start for e in prediction.trace.of_step(0).events if e.name == name]


def test_a_block_takes_at_least_what_the_host_takes_to_launch_its_kernels():
    p = step(Plan(), dispatch_us=1.0)
    kernels = [c for c in p.program.costs.calls(p.program[0].step[1]) if isinstance(c, KernelCall) and c.kind != "view"]
    assert events(p, "F0") == [pytest.approx(1e-6 * len(kernels))]
    assert step(Plan(), PerCall(1e-3)).step_seconds == step(Plan(), PerCall(1e-3), dispatch_us=1.0).step_seconds


def test_a_host_that_launches_beside_collectives_hides_behind_them():
    network, plan = links(1e-2), Plan(tensor=2)
    slow, fast = (step(plan, network=network, dispatch_us=us) for us in (1.0, 0.0))
    assert events(slow, "all_reduce") == events(fast, "all_reduce")
    assert slow.step_seconds < fast.step_seconds + 1e-4


def test_the_gradient_of_attention_in_tiles_takes_as_much_longer_as_a_stack_says():
    plain, usual, longer = (
        step(Plan(), PerCall(1e-3), attention=attention, attention_grad_time=times).step_seconds
        for attention, times in (("plain", 3.0), ("flash", 1.0), ("flash", 3.0))
    )
    assert longer == pytest.approx(usual + 2 * 2 * 1e-3)  # in two layers
    assert plain == step(Plan(), PerCall(1e-3), attention="plain").step_seconds


def test_shares_that_are_hidden_take_no_time():
    network = links(0.0)
    for plan, name, share in (
        (Plan(tensor=2), "all_reduce", "tensor_hidden"),
        (Plan(data=2), "reduce 0", "data_hidden"),
        (Plan(pipeline=2), "send0", "pipeline_hidden"),
    ):
        whole, part = (step(plan, network=network, **{share: hidden}) for hidden in (0.0, 0.75))
        assert sum(events(part, name)) == pytest.approx(sum(events(whole, name)) / 4) and events(whole, name)


def test_gradients_may_be_reduced_in_float32_whatever_the_precision():
    plan, network = Plan(data=2, precision="bfloat16"), links(0.0)
    half, full = (events(step(plan, network=network, gradients=g), "reduce 0") for g in ("", "float32"))
    assert full == pytest.approx([2 * seconds for seconds in half])


def test_tensor_ranks_may_each_send_a_part_of_an_activation():
    network = links(0.0)
    for sequence_parallel, share in ((False, 2), (True, 1)):  # which has it in parts already
        plan = Plan(pipeline=2, tensor=2, sequence_parallel=sequence_parallel)
        whole, part = (events(step(plan, network=network, split_sends=s), "send0") for s in (False, True))
        assert part == pytest.approx([seconds / share for seconds in whole])


def test_parameters_that_are_gathered_beside_kernels_in_part_keep_these_waiting():
    plan, network = Plan(data=2, sharding="parameters"), links(0.0)
    times = [step(plan, PerCall(1e-3), network, gather_overlap=share).step_seconds for share in (1.0, 0.5, 0.0)]
    assert times[0] < times[1] < times[2]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0])


def test_a_stack_may_recompute_and_reduce_otherwise_than_the_plan_says():
    plan = Plan(data=2, recompute="full")
    assert step(plan, recompute="none", bucket_mb=25.0).plan == Plan(data=2, bucket_mb=25.0)
    assert step(plan).plan == plan


def test_a_pace_multiplies_the_step(monkeypatch):
    monkeypatch.setattr("simulator.stacks.stack.pace", lambda stack, device: 1.25 if stack == "default" else 1.0)
    plan, where = Plan(data=2, pipeline=2), cluster(PerCall(1e-4), links())
    fitted, plain = (simulate(gpt, plan, where, 8, fitted=fitted) for fitted in (True, False))
    assert fitted.step_seconds == pytest.approx(1.25 * plain.step_seconds, rel=1e-12)


class OfDtype(PerCall):
    """A second for each product in float8."""

    def price(self, call):
        return float(call.dtype == "float8"), 1.0


def test_the_head_computes_its_products_in_the_dtype_of_the_plan():
    p = step(Plan(precision="bfloat16"), OfDtype(), products="float8")
    assert events(p, "F0") == [2 * 4]  # of two layers: queries, keys and values; their output; the feed-forward's two
    assert p.evaluation_seconds == 2 * 4
    whole, halves = (
        step(Plan(micro_batches=2, precision="bfloat16", schedule=schedule), OfDtype(), products="float8").step_seconds
        for schedule in ("1f1b", "zero-bubble")
    )
    assert halves == whole == 2 * 3 * 2 * 4  # micro-batches; forward, gradients of inputs and of weights
    assert DEFAULT.without_products is DEFAULT
    everywhere = replace(DEFAULT, products="tfloat32")
    assert everywhere.without_products is everywhere
