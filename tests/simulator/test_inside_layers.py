"""Collectives inside layers in a simulation: which are waited for at once, and which go on beside kernels."""

from dataclasses import replace
from itertools import pairwise

import pytest

from minidl import models
from minidl.parallel import Plan, check
from minidl.parallel.handle import CollectiveCall
from minidl.trace import COLLECTIVES, COMPUTE
from simulator import Cluster, simulate
from simulator.engine import Engine
from simulator.segments import Placed, Segment, placed
from tests.simulator.hand_made import made_up_whole

CALL = CollectiveCall("all_reduce", ("tensor",), 2, 8)


def segments(*parts):
    """Kernels as seconds; a collective as (phase, seconds), with a number behind where it has one."""
    return [
        Segment(part, 1.0, None)
        if isinstance(part, float)
        else Segment(part[1], 1.0, replace(CALL, phase=part[0], number=part[2] if len(part) > 2 else 0))
        for part in parts
    ]


def spans(found):
    return [(one.start, one.end) for one in found if one.collective]


def test_what_is_waited_for_at_once_takes_its_time():
    found, seconds = placed(segments(1.0, ("", 2.0), 3.0))
    assert seconds == 6.0 and spans(found) == [(1.0, 3.0)]
    assert found[-1] == Placed(3.0, 6.0, None)


@pytest.mark.parametrize(("kernels", "total"), [(3.0, 5.0), (1.0, 4.0), (2.0, 4.0)])
def test_between_start_and_wait_kernels_go_on(kernels, total):
    found, seconds = placed(segments(1.0, ("start", 2.0, 1), kernels, ("wait", 0.0, 1), 1.0))
    assert seconds == total and spans(found) == [(1.0, 3.0)]


def test_kernels_that_go_on_from_others_are_one_with_them():
    pieces = segments(1.0, ("start", 5.0, 1), 2.0, ("wait", 0.0, 1), 4.0)
    pieces[2] = pieces[2]._replace(goes_on=True)
    found, _ = placed(pieces)
    assert [(one.start, one.end) for one in found if one.collective is None] == [(0.0, 3.0), (6.0, 10.0)]


@pytest.mark.parametrize("cores", [False, True], ids=["devices", "cores"])
def test_only_a_message_that_a_core_copies_comes_between_kernels(cores):
    """Ring attention starts sends amid kernels, which go on beside them where each rank has a device."""
    on = made_up_whole().cluster() if cores else Cluster.load("dgx-a100", devices=2)
    prediction = simulate(lambda mesh: models.gpt(1, 32, 4, 64, 16, mesh), Plan(context=2), on, batch_size=4)
    forward = next(i for i in prediction.program[0].step if i.name == "F0")
    found = prediction._run.prices.segments(0, forward)
    after = [(before.collective, kernels.goes_on) for before, kernels in pairwise(found) if not kernels.collective]
    assert ("start", "send", not cores) in {(call.phase, call.name, goes_on) for call, goes_on in after}
    assert not any(goes_on for call, goes_on in after if call.phase != "start")


def test_collectives_of_a_rank_come_one_after_the_other():
    found, seconds = placed(segments(("start", 2.0, 1), ("start", 2.0, 2), 1.0, ("wait", 0.0, 2), ("wait", 0.0, 1)))
    assert seconds == 4.0 and spans(found) == [(0.0, 2.0), (2.0, 4.0)]


def test_what_nobody_waits_for_does_not_hold_up_the_kernels():
    found, seconds = placed(segments(("start", 9.0, 1), 1.0))
    assert seconds == 1.0 and spans(found) == [(0.0, 9.0)]


def predicted(plan, **options):
    build = models.builder("gpt2-small", **options)
    return simulate(build, plan, Cluster.load("dgx-a100", devices=plan.workers), batch_size=plan.micro_batches * 4)


def overlap(trace, name):
    """Seconds in which a collective of that name runs beside kernels of its rank."""
    of = {lane: [(e.start, e.end) for e in trace.events if e.lane == lane and e.rank == 0] for lane in (COMPUTE,)}
    found = [(e.start, e.end) for e in trace.events if e.lane == COLLECTIVES and e.name == name and e.rank == 0]
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in found for c, d in of[COMPUTE])


def test_the_sum_of_input_gradients_goes_on_beside_the_weights_on_a_cluster():
    trace = predicted(Plan(tensor=4)).trace
    assert overlap(trace, "all_reduce") > 0


def test_keys_and_values_travel_while_attention_is_computed_on_a_cluster():
    prediction = predicted(Plan(context=4), sequence=1024)
    sends = [e for e in prediction.trace.events if e.name == "send" and e.lane == COLLECTIVES and e.rank == 0]
    sent = sum(e.end - e.start for e in sends)
    assert sends and overlap(prediction.trace, "send") > 0.5 * sent


@pytest.mark.parametrize(
    "plan",
    [Plan(tensor=2), Plan(tensor=2, sequence_parallel=True), Plan(context=2), Plan(context=2, tensor=2)],
    ids=str,
)
def test_whether_all_ranks_are_run_or_one_of_each_stage_makes_no_difference(plan):
    prediction = predicted(plan)
    program = prediction.program
    whole = program.edit({rank: program[rank] for rank in range(plan.workers)})  # runs every rank
    check(whole)
    engine = Engine(whole, prediction._run.prices)
    assert engine.run() == pytest.approx(prediction.step_seconds, rel=1e-9)


def test_a_slower_link_shows_only_as_far_as_kernels_do_not_hide_it():
    """An all-reduce beside the weight's gradient costs nothing while it is the shorter of the two."""
    hidden = placed(segments(("start", 1.0, 1), 2.0, ("wait", 0.0, 1)))[1]
    assert hidden == placed(segments(("start", 1.9, 1), 2.0, ("wait", 0.0, 1)))[1] == 2.0
