"""rounds.py, structure.py: a step of many micro-batches made of one of few takes what it takes when run whole."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models
from minidl.parallel import Plan, ProgramError
from minidl.parallel import instructions as I
from minidl.parallel.few_micro_batches import _few_of, few_micro_batches
from minidl.parallel.meetings import CHANNEL_MESSAGES
from minidl.parallel.memory import memory_over_step, peak_memory
from minidl.parallel.prepare import prepare
from minidl.parallel.schedules import schedule_of
from minidl.parallel.structure import run_whole, steps_of, structure_of
from simulator import simulate
from simulator.timeline import Timeline
from tests.simulator.hand_made import FixedPrices, cluster, links, program
from tests.simulator.test_timeline import SECONDS

SCHEDULES = {"naive": 1, "gpipe": 2, "1f1b": 1, "zero-bubble": 1, "interleaved": 2}  # and chunks
SHARDINGS = st.sampled_from(["none", "optimizer", "gradients", "parameters"])


def times(structure, prices) -> tuple[float, ...]:
    found = Timeline(structure, prices)
    return found.step_seconds, found.first_step_seconds, *found.busy_and_exposed()


@given(
    st.sampled_from(list(SCHEDULES.items())), st.integers(1, 4), st.integers(1, 7), SHARDINGS,
    st.sampled_from(["none", "full"]), SECONDS, st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=50)
def test_a_step_of_many_micro_batches_takes_what_all_of_it_takes(
    schedule, pipeline, more, sharding, recompute, seconds, buckets
):
    name, chunks = schedule
    pipeline = max(pipeline, chunks)
    count = pipeline * (more + 3) if name == "interleaved" else 2 * pipeline + 3 * more
    plan = Plan(
        data=3, pipeline=pipeline, micro_batches=count, schedule=name, chunks=chunks, sharding=sharding,
        recompute=recompute,
    )  # fmt: skip
    own, prices = program(plan, buckets), FixedPrices(seconds)
    assert times(structure_of(own), prices) == pytest.approx(times(run_whole(own), prices), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("plan", "few"),
    [
        (Plan(micro_batches=50), 5),
        (Plan(pipeline=4, micro_batches=50), 8),
        (Plan(pipeline=4, micro_batches=50, schedule="naive"), 5),
        (Plan(pipeline=4, micro_batches=50, schedule="zero-bubble"), 8),
        (Plan(pipeline=4, micro_batches=48, schedule="interleaved", chunks=2), 24),
        (Plan(pipeline=4, micro_batches=50, schedule="gpipe"), None),  # first all forwards, then all backwards
        (Plan(pipeline=4, micro_batches=8), None),
    ],
    ids=str,
)
def test_few_micro_batches_stand_for_many_where_a_round_follows_a_round(plan, few):
    own = program(plan)
    found = few_micro_batches(plan, [plan.chunks] * plan.pipeline, left=3)
    assert found == few
    made, whole = (
        [i.micro_batch for node in one.parts["step"].nodes for _, i in node.members if isinstance(i, I.Forward)]
        for one in (structure_of(own), run_whole(own))
    )
    assert len(made) == len(whole)
    assert set(made) == set(range(plan.micro_batches if few is None else few))


@pytest.mark.parametrize(
    ("name", "chunks"), [*((name, 1) for name in ("naive", "gpipe", "1f1b", "zero-bubble")), ("interleaved", 2)]
)
@pytest.mark.parametrize("pipeline", [2, 3, 6])
def test_a_few_and_some_more_micro_batches_show_how_an_order_goes_on_with_any_number(name, chunks, pipeline):
    shift = pipeline if name == "interleaved" else 1
    for count in range(shift, 30 * shift, shift):
        plan = Plan(pipeline=pipeline, micro_batches=count, schedule=name, chunks=chunks)
        looked_up = _few_of(schedule_of(name), pipeline, count, (chunks,) * pipeline, shift, 3)
        assert few_micro_batches(plan, [chunks] * pipeline, 3) == looked_up


@given(
    st.sampled_from(["1f1b", "zero-bubble", "interleaved", "naive"]), st.integers(2, 4), st.integers(10, 40), SHARDINGS,
    SECONDS,
)  # fmt: skip
@settings(max_examples=30)
def test_the_rounds_between_end_when_they_do_if_all_of_them_are_run(name, pipeline, more, sharding, seconds):
    interleaved = name == "interleaved"
    plan = Plan(
        data=2, pipeline=pipeline, micro_batches=more * (pipeline if interleaved else 1), schedule=name,
        chunks=1 + interleaved, sharding=sharding,
    )  # fmt: skip
    run = Timeline(structure_of(program(plan)), FixedPrices(seconds)).runs["step"]
    if run.graph.condensed is run.graph:
        return
    every, short, rounds = run.ends, run.condensed, run.graph.rounds
    for step in (1, 2):
        whole, few = every[step * len(run.graph) :], short[step * len(rounds.graph) :]
        tail = len(rounds.graph) - rounds.begin
        assert whole[: rounds.begin] == few[: rounds.begin]
        assert whole[len(run.graph) - tail : len(run.graph)] == few[rounds.begin : len(rounds.graph)]


def test_where_more_messages_are_sent_than_a_channel_holds_none_is_ever_full():
    """So no send waits for room, of which the step of few micro-batches knows nothing."""
    plan = Plan(pipeline=4, micro_batches=2 * CHANNEL_MESSAGES)
    own, prices = program(plan), FixedPrices({I.Forward: 1.0, I.Backward: 2.5, I.SendActivation: 0.25})
    assert times(structure_of(own), prices) == pytest.approx(times(run_whole(own), prices), rel=1e-9)
    several = Plan(pipeline=2, micro_batches=16, schedule="interleaved", chunks=CHANNEL_MESSAGES // 2 + 6)
    assert few_micro_batches(several, [several.chunks] * 2, 3) == 12
    nodes = structure_of(program(several)).parts["step"].nodes
    shown = {i.micro_batch for node in nodes for _, i in node.members if isinstance(i, I.Forward)}
    assert len(shown) == several.micro_batches


def test_what_is_deleted_from_the_middle_that_few_micro_batches_stand_for_is_missed():
    plan, where = Plan(data=2, pipeline=2, micro_batches=20), cluster(network=links())
    build = models.builder("mlp-digits")
    whole = simulate(build, plan, where, 40)
    for kind in (I.Forward, I.Backward, I.SendActivation, I.RecvGradient):
        index = next(n for n, i in enumerate(whole.program[0].step) if type(i) is kind and i.micro_batch == 11)
        with pytest.raises(ProgramError, match="rank"):
            simulate(build, plan, where, 40, edit=lambda p, index=index: p.without(0, index))


def test_an_edited_middle_is_run_as_it_stands():
    """A receive of a gradient that comes before the send it could have followed: stage 1 then waits longer."""
    plan, prices = Plan(pipeline=2, micro_batches=20), FixedPrices({I.Forward: 1.0, I.Backward: 2.0, I.LoadInput: 0.0})
    own = program(plan)
    step = list(own[0].step)
    load = next(n for n, i in enumerate(step) if isinstance(i, I.LoadInput) and i.micro_batch == 11)
    forward = next(n for n, i in enumerate(step) if isinstance(i, I.Forward) and i.micro_batch == 11)
    backward = next(n for n, i in enumerate(step) if isinstance(i, I.Backward) and i.micro_batch == 10)
    receive = next(n for n, i in enumerate(step) if isinstance(i, I.RecvGradient) and i.micro_batch == 10)
    assert load < forward < receive < backward
    for n in (receive, backward):  # before the forward of the next micro-batch, once
        step.insert(load, step.pop(n))
        load += 1
    edited = own.edit({0: replace(own[0], step=tuple(step))})
    assert Timeline(structure_of(edited), prices).step_seconds > Timeline(structure_of(own), prices).step_seconds


@pytest.mark.parametrize(
    "fields", [{}, {"schedule": "zero-bubble"}, {"recompute": "full"}, {"sharding": "parameters"}], ids=str
)
def test_a_step_of_few_micro_batches_holds_most_when_that_of_many_does(fields):
    plan = Plan(**{"data": 2, "pipeline": 2, "micro_batches": 24, "precision": "bfloat16"} | fields)
    own = prepare(models.builder("gpt-tiny"), plan, 96).training
    steps = steps_of(own)
    for rank in own.representatives():
        assert len(steps[rank]) < len(own[rank].step)
        held = [memory for _, memory in memory_over_step(own, rank)]
        assert peak_memory(own, rank, steps[rank]) == max(held, key=lambda memory: memory.total)
