"""timeline.py: one pass in the order of what waits for what finds what the events of an engine find."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.parallel import instructions as I
from minidl.parallel.structure import structure_of
from simulator.engine import Engine
from simulator.simulation import trace_of
from simulator.timeline import Timeline
from tests.parallel.plans import PLANS
from tests.simulator.hand_made import FixedPrices, program

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
