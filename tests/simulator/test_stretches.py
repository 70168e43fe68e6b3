"""What was found of a block holds for all predictions on the device, with the stack and in the precision."""

from dataclasses import replace

import pytest

from minidl import models
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from minidl.parallel.handle import CollectiveCall
from simulator import Cluster, simulate
from simulator.cluster_file import described
from simulator.compute import Roofline
from simulator.compute.device import device
from simulator.stacks import Stack
from simulator.stretches import stretches_of

DEFAULT = Stack.load("default")
A100, H100 = (Cluster.load(name).compute for name in ("dgx-a100-80g", "dgx-h100-80g"))


def kernel(kind="elementwise", name="add"):
    return KernelCall(name, kind, ((1000,),), "float32", 1000, 4000, 4000)


def test_kernels_are_added_up_between_collectives_and_the_host_launches_all_but_views():
    reduce = CollectiveCall("all_reduce", ("tensor",), 2, 100)
    calls = [kernel(), kernel("view", "reshape"), reduce, kernel(), kernel()]
    stack = replace(DEFAULT, dispatch_us=50)
    found, launching = stretches_of(calls, A100, stack, "float32")
    one, view = (A100.price(call)[0] for call in calls[:2])
    assert [stretch.seconds for stretch in found] == pytest.approx([one + view, 2 * one])
    assert [stretch.collective for stretch in found] == [reduce, None]
    assert launching == pytest.approx(4 * 50e-6)


def test_each_of_calls_device_stack_and_precision_is_told_apart():
    calls, passes = [kernel()], replace(DEFAULT, passes=2.0)
    found = stretches_of(calls, A100, DEFAULT, "float32")
    assert stretches_of(calls, A100, DEFAULT, "float32") is found
    others = [(calls, H100, DEFAULT, "float32"), (calls, A100, passes, "float32"), (calls, A100, DEFAULT, "bfloat16")]
    for other in [*others, ([*calls, *calls], A100, DEFAULT, "float32")]:
        assert stretches_of(*other) != found


def test_a_device_is_the_same_object_however_its_figures_are_ordered():
    table = described("dgx-a100-80g")["device"]
    assert device(table) is device(dict(reversed(table.items())))
    assert device(table | {"launch_us": {"value": 7.0, "source": "mine"}}) is not device(table)


def test_what_is_known_of_calls_that_are_gone_is_not_taken_for_that_of_others():
    for count in range(1, 200):
        calls = [kernel()] * count  # where the list before it lay, for all that anybody knows
        (stretch,), _ = stretches_of(calls, A100, DEFAULT, "float32")
        assert stretch.seconds == pytest.approx(count * A100.price(kernel())[0])
        del calls


def test_another_batch_on_another_cluster_of_the_device_prices_no_kernel_again(monkeypatch):
    def predict(devices, micro_batches):
        plan = Plan(data=devices, micro_batches=micro_batches, precision="bfloat16")
        where = Cluster.load("dgx-a100-80g", devices=devices)
        return simulate(models.builder("gpt2-small"), plan, where, devices * micro_batches).step_seconds

    first = predict(8, 2)
    asked = []
    price = Roofline.price
    monkeypatch.setattr(Roofline, "price", lambda self, call: asked.append(call) or price(self, call))
    assert predict(16, 3) > first
    assert {call.name for call in asked} <= {"load"}  # which is of no block
