"""timeline.py: one pass in the order of what waits for what finds what the events of an engine find."""

from copy import copy
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.instructions.instruction import Touched
from minidl.parallel.structure import structure_of
from simulator import Cluster, simulate
from simulator.engine import Engine
from simulator.prices import Prices
from simulator.simulation import trace_of
from simulator.timeline import Timeline
from tests.parallel.plans import PLANS
from tests.simulator.hand_made import FixedPrices, PerCall, cluster, program

KINDS = [kind for kind in vars(I).values() if isinstance(kind, type) and issubclass(kind, I.Instruction)]
SECONDS = st.fixed_dictionaries({kind: st.sampled_from([0.0, 0.25, 1.0, 1.1, 3.0]) for kind in KINDS})


def same(found: Timeline, engine: Engine, program) -> None:
    """Both have run; they found the same steps, and the same events."""
    assert found.step_seconds == pytest.approx(engine.step_seconds, rel=1e-12)
    assert found.first_step_seconds == pytest.approx(engine.first_step_seconds, rel=1e-12)
    if found.steps < 3:  # of more, a trace takes the median of those after the first
        assert found.busy_and_exposed() == pytest.approx(engine.busy_and_exposed(), rel=1e-9, abs=1e-12)
    one, other = (
        sorted((e.rank, e.lane, e.name, e.step, e.start, e.end) for e in trace.events)
        for trace in (trace_of(program, found), engine.trace())
    )
    assert [event[:4] for event in one] == [event[:4] for event in other]
    for mine, its in zip(one, other, strict=True):
        assert mine[4:] == pytest.approx(its[4:], rel=1e-12, abs=1e-12)


@given(PLANS, SECONDS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=60)
def test_a_timeline_is_what_the_events_of_an_engine_give(plan, seconds, buckets, steps):
    own, prices = program(plan, buckets), FixedPrices(seconds)
    prices.plan = plan
    engine = Engine(own, prices, steps)
    engine.run()
    same(Timeline(structure_of(own), prices, steps), engine, own)


@dataclass(frozen=True)
class Pause(I.CustomInstruction):
    """Computes something, for which nobody waits but what follows on its lane."""

    label = "pause"

    def touches(self):
        return Touched()

    def calls(self, costs):
        return [KernelCall("add", "elementwise", ((1 << 28,), (1 << 28,)), "float32", 1 << 28, 1 << 31, 1 << 30)]


@pytest.mark.parametrize(
    "plan", [Plan(tensor=2, micro_batches=2), Plan(context=2), Plan(tensor=4, pipeline=2)], ids=str
)
def test_who_is_late_holds_up_those_that_its_layers_communicate_with(plan):
    """What is started beside kernels, too: each goes on by itself until it waits for one that is late."""

    def late(program):
        own = program[1]
        at = len(own.step) // 3
        return program.edit({1: replace(own, step=(*own.step[:at], Pause(), *own.step[at:]))})

    build, where = models.builder("gpt-tiny"), Cluster.load("dgx-a100", devices=plan.workers)
    whole = simulate(build, plan, where, batch_size=8 * plan.micro_batches)
    found = simulate(build, plan, where, batch_size=8 * plan.micro_batches, edit=late)
    assert isinstance(found._run, Timeline)
    assert found.step_seconds > whole.step_seconds * 1.01
    engine = Engine(found.program, found._run.prices)
    engine.run()
    assert found.step_seconds == pytest.approx(engine.step_seconds, rel=1e-9)
    assert found.first_step_seconds == pytest.approx(engine.first_step_seconds, rel=1e-9)
    assert found._run.busy_and_exposed() == pytest.approx(engine.busy_and_exposed(), rel=1e-6)


@pytest.mark.parametrize("slow", [0, 1])
def test_a_step_has_ended_when_the_slowest_of_a_stage_s_ranks_has_updated(slow):
    def late(program):
        own = program[slow]
        at = next(n for n, i in enumerate(own.step) if isinstance(i, I.OptimizerStep))
        return program.edit({slow: replace(own, step=(*own.step[:at], Pause(), *own.step[at:]))})

    plan, where = Plan(data=2, micro_batches=2), Cluster.load("dgx-a100", devices=2)
    found = simulate(models.builder("gpt-tiny"), plan, where, batch_size=8, edit=late)
    assert isinstance(found._run, Timeline)
    engine = Engine(found.program, found._run.prices)
    engine.run()
    assert found.first_step_seconds == pytest.approx(engine.first_step_seconds, rel=1e-9)
    assert found._run.busy_and_exposed() == pytest.approx(engine.busy_and_exposed(), rel=1e-6)


def test_where_layers_communicate_in_several_ways_and_every_rank_is_run_events_decide():
    plan = Plan(tensor=2, context=2)
    build, where = models.builder("gpt-tiny"), Cluster.load("dgx-a100", devices=4)
    edited = simulate(build, plan, where, batch_size=8, edit=lambda program: program.edit({0: program[0]}))
    assert isinstance(edited._run, Engine)
    assert edited.step_seconds == pytest.approx(simulate(build, plan, where, batch_size=8).step_seconds, rel=1e-9)


def test_times_are_not_remembered_with_what_waits_for_what():
    plan, build = Plan(data=2, pipeline=2, micro_batches=4), models.builder("gpt-tiny")
    slow, fast = (simulate(build, plan, cluster(PerCall(s)), batch_size=8).step_seconds for s in (2.0, 1.0))
    assert slow == pytest.approx(2 * fast)
    assert simulate(build, replace(plan, data=4), cluster(PerCall(1.0)), batch_size=16).step_seconds == fast


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt-tiny", dict(pipeline=2, micro_batches=4, tensor=2, data=16)),
        ("gpt-tiny", dict(pipeline=4, micro_batches=4, data=4, bucket_mb=0.1)),
        ("gpt-tiny", dict(pipeline=4, micro_batches=4, data=4, sharding="parameters", recompute="full")),
        ("gpt-tiny", dict(pipeline=2, chunks=2, schedule="interleaved", micro_batches=4, data=3, sharding="optimizer")),
        ("gpt-tiny", dict(pipeline=4, micro_batches=8, schedule="zero-bubble")),
        ("moe-tiny", dict(data=2, expert=4, pipeline=2, micro_batches=2)),
    ],
    ids=str,
)
def test_each_node_takes_as_long_as_the_first_that_is_alike(name, fields):
    plan = Plan(**fields, precision="float16")
    where, build = Cluster.load("dgx-a100", devices=plan.workers), models.builder(name, tied=plan.tensor > 1)
    found = simulate(build, plan, where, batch_size=4 * plan.workers * plan.micro_batches)
    by_itself = copy(found._run)  # each node at prices of which none has been asked for
    for graph in found._run.structure.parts.values():
        for node, seconds in zip(graph.works, found._run._seconds_of(graph.works), strict=True):
            by_itself.prices = Prices(where, found._run.prices.costs, found.stack)
            assert by_itself._seconds(node) == seconds
    works = found._run.structure.parts["step"].works
    assert len(set(found._run.prices.alike(works))) < len(works) or name == "moe-tiny"
