"""engine.py: what runs beside what. Lanes of a device, and steps that follow one another without a pause."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES
from simulator.engine import Engine
from tests.simulator.hand_made import FixedPrices, cluster, program, run

F, B = 2.0, 3.0
WORK = {I.Forward: F, I.Backward: B}
SECONDS = st.sampled_from([0.25, 1.0, 2.0, 2.5, 7.0])
ZERO = Plan(data=2, sharding="optimizer")


def events(trace, rank, step):
    """name -> event, of one step of one rank."""
    return {e.name: e for e in trace.events if (e.rank, e.step) == (rank, step)}


# The gather of a sharded optimizer


@given(st.integers(1, 5), SECONDS, SECONDS)
@settings(max_examples=30)
def test_a_gather_runs_beside_the_forward_of_the_next_step(buckets, gather, update):
    """Each bucket goes forward when it is gathered: only the first gather is exposed, or all where they are slower."""
    work = WORK | {I.GatherParameters: gather, I.OptimizerStep: update}
    backward = buckets * B + update
    period, trace = run(ZERO, work, buckets, steps=2)
    assert period == pytest.approx(max(gather + buckets * F, buckets * gather + F) + backward)
    assert trace.exposed_communication == pytest.approx(period - buckets * F - backward)
    alone, _ = run(ZERO, work, buckets)
    assert alone == pytest.approx(buckets * (F + gather) + backward)  # until all is gathered
    assert period == pytest.approx(alone) if buckets == 1 else period < alone


def test_the_first_step_waits_for_no_gather():
    engine = Engine(program(ZERO, 3), FixedPrices(WORK | {I.GatherParameters: 1.0}))
    assert engine.run() == engine.step_seconds == 3 * (F + B) + 1.0
    assert engine.first_step_seconds == 3 * (F + B)


def test_a_trace_has_the_gather_of_a_step_beside_the_forward_of_the_next():
    _, trace = run(ZERO, WORK | {I.GatherParameters: 1.5}, 3, steps=2)
    assert {e.step for e in trace.events} == {0, 1}
    gathers = [e for e in trace.events if e.name.startswith("gather") and e.step == 0]
    forwards = [e for e in trace.events if e.name == "F0" and e.step == 1]
    assert [e.name for e in gathers] == ["gather 0", "gather 1", "gather 2"]  # as the next forward needs them
    assert all(gather.end <= forward.start for gather, forward in zip(gathers, forwards, strict=True))
    assert forwards[0].start == gathers[0].end == gathers[1].start < forwards[0].end
    assert gathers[1].end < forwards[0].end < gathers[2].end  # bucket 2 is gathered while 0 and 1 go forward


def test_only_the_first_micro_batch_waits_for_gathers():
    plan = Plan(data=2, micro_batches=2, sharding="optimizer")
    work = WORK | {I.GatherParameters: 1.0}
    assert run(plan, work, buckets=3, steps=2)[0] == 2 * 3 * (F + B) + 1.0


def test_where_the_processors_communicate_gathers_take_their_time_from_the_forward():
    period, trace = run(ZERO, WORK | {I.GatherParameters: 1.0}, 3, cores=2, steps=2)
    assert period == pytest.approx(3 * (F + B) + 3 * 1.0)
    assert trace.exposed_communication == pytest.approx(3 * 1.0)


# Three lanes


@pytest.mark.parametrize(("send", "scatter"), [(10.0, 1.0), (1.0, 10.0), (4.0, 4.0)])
def test_messages_and_collectives_of_a_device_run_beside_each_other(send, scatter):
    """The last stage sends the gradient of its input and reduces its own two buckets: the longer of both, not both."""
    work = WORK | {I.SendGradient: send, I.ReduceScatterGradients: scatter}
    step, trace = run(Plan(data=2, pipeline=2, sharding="optimizer"), work, buckets=2)
    last = events(trace, trace.ranks[1], 0)
    done = 2 * (F + F + B)  # of the backward of both buckets
    assert last["B0"].end == last["send grad0"].start == last["reduce-scatter 1"].start == done
    assert last["send grad0"].end == done + send
    assert last["reduce-scatter 0"].end == done + 2 * scatter
    assert {last[name].lane for name in ("B0", "send grad0", "reduce-scatter 0")} == {COMPUTE, MESSAGES, COLLECTIVES}
    # The first stage goes back when the gradient has come, and reduces its buckets beside that.
    assert step == done + send + B + max(B + scatter, 2 * scatter)


def test_on_one_thread_lanes_take_turns():
    """What a device does side by side, a process does one after the other."""
    plan, work = Plan(pipeline=2, data=2), WORK | {I.SendGradient: 4.0, I.ReduceGradients: 5.0}
    _, trace = run(plan, work, buckets=1, cores=4)
    own = sorted((e for e in trace.events if e.rank == 2 and e.end > e.start), key=lambda e: e.start)
    assert all(before.end <= after.start for before, after in zip(own, own[1:], strict=False))
    assert sum(e.end - e.start for e in own) == pytest.approx(F + B + 4.0 + 5.0)


def test_a_device_makes_only_the_lanes_that_its_program_uses():
    engine = Engine(program(Plan(data=2)), FixedPrices(WORK, cluster()))
    assert [list(rank.streams) for rank in engine.ranks.values()] == [[COLLECTIVES, COMPUTE]]
    engine = Engine(program(Plan(pipeline=2)), FixedPrices(WORK, cluster()))
    assert [list(rank.streams) for rank in engine.ranks.values()] == [[MESSAGES, COLLECTIVES, COMPUTE]] * 2
