"""engine.py: a rank of each stage stands for all; a program in which something is missing does not pass unnoticed."""

from collections import Counter
from dataclasses import replace

import pytest

from minidl import models
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.checker import ProgramError
from minidl.parallel.machine import HazardError
from minidl.parallel.program import Program, RankProgram
from minidl.parallel.structure import run_whole
from simulator import Cluster, simulate
from simulator.engine import HANDLERS, Engine, SimulationError
from simulator.timeline import Timeline
from tests.simulator.hand_made import FixedPrices, PerCall, cluster, links, program

WORK = {I.Forward: 2.0, I.Backward: 3.0}


# Representatives


def all_ranks(program: Program) -> Program:
    """The same program, one rank's list replaced by itself: so an engine runs every rank."""
    return program.edit({0: program[0]})


def test_an_engine_runs_one_step_or_more():
    with pytest.raises(ValueError, match="steps=0 is not a whole number of at least 1"):
        Engine(program(Plan()), FixedPrices(WORK), steps=0)


def gpt(mesh):
    return models.gpt(6, 64, 8, 128, 32, mesh)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(data=4, micro_batches=2),
        Plan(pipeline=4, micro_batches=8),
        Plan(tensor=8),
        Plan(data=2, tensor=2, pipeline=2, micro_batches=4, schedule="gpipe"),
        Plan(data=4, tensor=4, pipeline=2, micro_batches=2),
        Plan(data=16, pipeline=2, schedule="naive", micro_batches=2),
        Plan(data=8, tensor=2, pipeline=2, sharding="optimizer"),
    ],
    ids=str,
)
def test_a_rank_of_each_stage_gives_the_step_that_all_ranks_give(plan):
    where = Cluster.load("dgx-a100", devices=64)
    few = simulate(gpt, plan, where, batch_size=64)
    every = simulate(gpt, plan, where, batch_size=64, edit=all_ranks)
    assert every.trace.ranks == list(range(plan.workers))
    assert few.trace.ranks == list(plan.mesh(0).ranks("pipeline"))
    whole = Timeline(run_whole(every.program), every._run.prices)
    assert few.step_seconds == every.step_seconds == pytest.approx(whole.step_seconds, rel=1e-11)
    assert few.breakdown == every.breakdown
    assert list(few.breakdown.values())[:2] == pytest.approx(whole.busy_and_exposed(), rel=1e-9, abs=1e-15)
    for rank in few.trace.ranks:
        mine, same = ([e for e in p.trace.events if e.rank == rank] for p in (few, every))
        key = lambda e: (e.lane, e.name)  # noqa: E731
        assert sorted(map(key, mine)) == sorted(map(key, same))


# Programs that do not run to their end


def test_every_kind_of_instruction_is_simulated():
    instructions = {kind for kind in vars(I).values() if isinstance(kind, type) and issubclass(kind, I.Instruction)}
    assert {kind.kind for kind in instructions} == set(HANDLERS)


@pytest.mark.parametrize("cores", [None, 2])
def test_a_program_that_deadlocks_names_the_rank_and_the_instruction(cores):
    """Rank 0 waits for a gradient before it sends the last input, and rank 1 goes back only after all forwards."""
    whole = program(Plan(pipeline=2, micro_batches=2, schedule="gpipe"))
    own = list(whole[0].step)
    (send,) = [i for i in own if isinstance(i, I.SendActivation) and i.micro_batch == 1]
    (receive,) = [i for i in own if isinstance(i, I.RecvGradient) and i.micro_batch == 0]
    own.remove(send)
    own.insert(own.index(receive) + 1, send)
    crossed = whole.edit({0: RankProgram((), tuple(own), ())})
    prices = FixedPrices(WORK, cluster(cores=cores))
    with pytest.raises(SimulationError, match=r"does not run to its end: .*rank 1 at RecvActivation\(.*micro_batch=1"):
        Engine(crossed, prices).run()


def test_a_collective_that_a_member_misses_names_those_that_wait():
    whole = program(Plan(data=2))
    (index,) = [k for k, i in enumerate(whole[1].step) if isinstance(i, I.ReduceGradients)]
    with pytest.raises(SimulationError, match=r"rank 0 at ReduceGradients.*rank 1 at ReduceLoss"):
        Engine(whole.without(1, index), FixedPrices(WORK)).run()


def test_a_list_that_reads_what_nothing_writes_is_refused_before_it_runs():
    whole = program(Plan(data=2))
    (index,) = [k for k, i in enumerate(whole[1].step) if isinstance(i, I.ReduceLoss)]
    with pytest.raises(HazardError, match="OptimizerStep.* reads the total, which nothing writes before"):
        Engine(whole.without(1, index), FixedPrices(WORK)).run()


PIPELINE = dict(pipeline=2, micro_batches=2)
LEFT_OUT = [  # and how the ranks run
    (Plan(data=2, **PIPELINE, sharding="optimizer"), None),
    (Plan(data=2, **PIPELINE, sharding="optimizer"), 2),
    (Plan(**PIPELINE, schedule="interleaved", chunks=2), None),
    (Plan(**PIPELINE, schedule="zero-bubble"), None),
    (Plan(**PIPELINE, schedule="zero-bubble", recompute="full", bucket_mb=0.004), 2),
]


@pytest.mark.parametrize(("plan", "cores"), LEFT_OUT, ids=str)
def test_no_instruction_can_be_left_out(plan, cores):
    where = cluster(PerCall(1e-3, instruction_seconds=1e-6), links(), cores=cores)
    build = models.builder("mlp-digits")
    whole = simulate(build, plan, where, 16)
    for rank in range(plan.workers):
        for index, instruction in enumerate(whole.program[rank].step):
            with pytest.raises(ProgramError) as caught:
                simulate(build, plan, where, 16, edit=lambda p, rank=rank, index=index: p.without(rank, index))
            assert "rank" in str(caught.value), instruction


@pytest.mark.parametrize(
    "plan",
    [
        Plan(data=2, **PIPELINE),
        Plan(data=2, **PIPELINE, sharding="optimizer"),
        Plan(data=2, **PIPELINE, schedule="zero-bubble"),
        Plan(data=2, **PIPELINE, recompute="full"),
        Plan(**PIPELINE, schedule="interleaved", chunks=2, recompute="full"),
    ],
    ids=str,
)
def test_an_engine_without_a_checker_notices_every_instruction_that_is_left_out(plan):
    whole = program(plan, buckets=2)
    everything = dict.fromkeys((type(i) for rank in range(plan.workers) for i in whole[rank].step), 1.0)

    def outcome(program):
        try:
            engine = Engine(program, FixedPrices(everything))
            return engine.run(), sorted((e.rank, e.lane, e.name) for e in engine.trace().events)
        except (SimulationError, HazardError) as error:
            return str(error)

    complete = outcome(all_ranks(whole))
    assert isinstance(complete, tuple)
    for rank in range(plan.workers):
        for index in range(len(whole[rank].step)):
            assert outcome(whole.without(rank, index)) != complete


# What is computed again


CHAIN = [
    Plan(micro_batches=2),
    Plan(data=2, micro_batches=2),
    Plan(tensor=2, micro_batches=2),
    Plan(micro_batches=2, schedule="zero-bubble"),
]


@pytest.mark.parametrize("plan", CHAIN, ids=str)
def test_a_step_that_computes_all_again_takes_longer_by_those_calls_alone(plan):
    once, again = (
        simulate(gpt, replace(plan, recompute=recompute), cluster(), batch_size=8) for recompute in ("none", "full")
    )
    calls = sum(
        call.bytes_read + call.bytes_written > 0
        for i in again.program[0].step
        if isinstance(i, I.Recompute)
        for call in again.program.costs.calls(i)
        if isinstance(call, KernelCall)
    )
    assert calls and again.step_seconds == pytest.approx(once.step_seconds + calls)  # a second a call
    forwards = [sum(len(block.recompute) for block in p.program.costs.profile.blocks) for p in (once, again)]
    assert forwards[0] == forwards[1]


def test_selective_recompute_adds_a_product_and_the_weights_for_each_layer():
    once, again = (
        simulate(gpt, Plan(recompute=recompute), cluster(), batch_size=8).program.costs.profile.blocks
        for recompute in ("none", "selective")
    )
    for block, other in zip(once, again, strict=True):
        assert other.forward == block.forward
        added = Counter(call.kind for call in other.backward) - Counter(call.kind for call in block.backward)
        added.pop("view", None)
        assert added in ({}, {"product": 1, "normalisation": 1})
    assert sum(len(other.backward) > len(block.backward) for block, other in zip(once, again, strict=True)) == 6


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_the_flops_that_the_utilisation_counts_are_those_needed_once(recompute, schedule):
    plan = Plan(pipeline=2, micro_batches=2, schedule=schedule)
    where = Cluster.load("dgx-a100", devices=2)
    once, again = (simulate(gpt, replace(plan, recompute=r), where, batch_size=8) for r in ("none", recompute))
    assert again.flops == once.flops
    assert again.step_seconds > once.step_seconds and again.mfu < once.mfu
