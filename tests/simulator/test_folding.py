"""folding.py: the few ranks that stand for all of an edited program give what all of them give when they are run."""

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan, ProgramError, check, structure
from minidl.parallel import instructions as I
from minidl.parallel.instructions.instruction import Collective, Touched
from minidl.parallel.memory import peak_memory
from minidl.parallel.mesh import AXES, Grid
from minidl.parallel.program import PEERS
from minidl.parallel.structure import run_whole, structure_of
from simulator import Cluster, simulate
from simulator.engine import Engine
from simulator.timeline import Timeline
from tests.simulator.hand_made import FixedPrices, program
from tests.simulator.test_timeline import SECONDS

SCHEDULES = [("naive", 1), ("gpipe", 2), ("1f1b", 1), ("zero-bubble", 1), ("interleaved", 2)]  # and chunks
PLANS = st.builds(
    lambda data, tensor, schedule, sharding: Plan(
        data=data, tensor=tensor, pipeline=2, micro_batches=4, schedule=schedule[0], chunks=schedule[1],
        sharding=sharding,
    ),
    st.integers(3, 4), st.sampled_from([1, 2, 4]), st.sampled_from(SCHEDULES), st.sampled_from(["none", "parameters"]),
)  # fmt: skip


@dataclass(frozen=True)
class Pause(I.CustomInstruction):
    """Computes something, so many times, for which nobody waits but what follows on its lane."""

    times: int = 1
    label = "pause"

    def touches(self):
        return Touched()

    def calls(self, costs):
        call = KernelCall("add", "elementwise", ((1 << 24,), (1 << 24,)), "float32", 1 << 24, 1 << 27, 1 << 26)
        return [call] * self.times


@dataclass(frozen=True)
class Meet(I.CustomInstruction, Collective):
    """Ranks wait for one another."""

    axes: tuple
    label, collective = "meet", "all_reduce"

    def touches(self):
        return Touched()


def times(structure, prices) -> tuple[float, ...]:
    found = Timeline(structure, prices)
    return found.step_seconds, found.first_step_seconds, *found.busy_and_exposed()


def outcome(find, program, prices) -> tuple[float, ...] | set[str]:
    """What a step takes by the structure that `find` finds; of a wrong program what is wrong."""
    try:
        return times(find(program), prices)
    except ProgramError as error:
        return words(error)


def words(error: Exception) -> set[str]:
    """What an error says but for numbers, clause by clause: of ranks, or samples, that do alike some are named."""
    said = re.sub(r"(#(, )?)+", "#", re.sub(r"\(#, #\)", "#", re.sub(r"\d+", "#", str(error))))
    return {clause.rstrip(")") for clause in re.split(r"; | \((?=rank)", said)}


def changed(own, change, where):
    """A list with one change, so far on in its step."""
    step = list(own.step)
    n = min(int(where * len(step)), len(step) - 1)
    if change == "pause":
        step.insert(n, Pause())
    elif change == "long pause":
        step.insert(n, Pause(2))
    elif change == "earlier":
        step.insert(max(n - 1, 0), step.pop(n))
    else:
        del step[n]
    return replace(own, step=tuple(step))


def paused(program, ranks):
    return program.edit({rank: changed(program[rank], "pause", 0.4) for rank in ranks})


def chosen_ranks(plan, which, first, second):
    """Ranks to edit."""
    replica = [rank for rank in range(plan.workers) if plan.mesh(rank).replica == plan.mesh(first).replica]
    return {"one": [first], "two": [first, second], "all": range(plan.workers), "a replica": replica}[which]


CHANGES = st.tuples(
    st.sampled_from(["pause", "pause", "long pause", "earlier", "without"]), st.floats(0, 1),
    st.sampled_from(["one", "two", "all", "a replica"]), st.integers(0, 31), st.integers(0, 31),
)  # fmt: skip


@given(PLANS, st.lists(CHANGES, min_size=1, max_size=3), SECONDS)
@settings(max_examples=60)
def test_an_edited_program_takes_what_all_of_its_ranks_take_when_they_are_run(plan, changes, seconds):
    edited, prices = program(plan, buckets=2), FixedPrices({**seconds, Pause: 0.7})
    for change, where, which, first, second in changes:
        ranks = chosen_ranks(plan, which, first % plan.workers, second % plan.workers)
        edited = edited.edit({rank: changed(edited[rank], change, where) for rank in ranks})
    expected = outcome(run_whole, edited, prices)
    if isinstance(expected, tuple):
        expected = pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert outcome(structure_of, edited, prices) == expected


@pytest.mark.parametrize("ranks", [[4], [3, 13], range(24)], ids=["one", "two", "all"])
@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_what_is_deleted_is_missed_in_the_same_words(schedule, ranks):
    own = program(Plan(data=3, tensor=4, pipeline=2, micro_batches=2, schedule=schedule))
    for index in range(len(own[ranks[0]].step)):
        edited = own
        for rank in ranks:
            edited = edited.without(rank, min(index, len(own[rank].step) - 1))
        with pytest.raises(ProgramError) as expected:
            check(edited)
        with pytest.raises(ProgramError) as found:
            structure_of(edited)
        assert words(found.value) == words(expected.value)


def test_what_all_ranks_sum_twice_is_noticed():
    """Which takes two of them: the samples of one alone would be there once."""

    def twice(step):
        return tuple(again for i in step for again in [i] * (1 + isinstance(i, I.ReduceGradients)))

    own = program(Plan(data=4, pipeline=2))
    edited = own.edit({rank: replace(own[rank], step=twice(own[rank].step)) for rank in range(8)})
    with pytest.raises(ProgramError, match="more than once"):
        structure_of(edited)


def test_the_order_of_micro_batches_tells_ranks_apart():
    def swapped(step):
        return tuple(replace(i, micro_batch=1 - i.micro_batch) if hasattr(i, "micro_batch") else i for i in step)

    own = program(Plan(data=3, pipeline=2, micro_batches=2, schedule="gpipe"))
    lists = {rank: replace(own[rank], step=swapped(own[rank].step)) for rank in (1, 4)}
    with pytest.raises(ProgramError, match="rank 4 expects the activation of micro-batch 0 from rank 1"):
        structure_of(own.edit({1: lists[1]}))
    assert list(structure_of(own.edit(lists)).counts.values()) == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("fields", "ranks"),
    [
        ({"data": 4, "tensor": 2}, [5]),
        ({"data": 4, "tensor": 2}, range(16)),
        ({"data": 4, "tensor": 2, "sharding": "parameters"}, [2, 13]),
        ({"data": 3, "tensor": 2, "schedule": "zero-bubble"}, [2, 3, 8, 9]),
        ({"data": 3, "context": 2, "schedule": "interleaved", "chunks": 2}, [11]),
        ({"data": 2, "expert": 4}, [6]),
    ],
    ids=str,
)
def test_steps_breakdown_memory_and_trace_of_an_edited_model_are_those_of_all_its_ranks(fields, ranks):
    plan = Plan(**fields, pipeline=2, micro_batches=2, precision="bfloat16")
    build = models.builder("moe-tiny" if plan.expert > 1 else "gpt-tiny")
    where = Cluster.load("dgx-a100", devices=plan.workers)
    edit = lambda program: paused(program, ranks)  # noqa: E731
    found = simulate(build, plan, where, 2 * plan.workers * plan.micro_batches, edit=edit)
    whole = Timeline(run_whole(found.program), found._run.prices)
    assert len(found._run.structure.ranks) < plan.workers == len(whole.structure.ranks)
    assert found.step_seconds == pytest.approx(whole.step_seconds, rel=1e-9)
    assert found.first_step_seconds == pytest.approx(whole.first_step_seconds, rel=1e-9)
    assert list(found.breakdown.values())[:2] == pytest.approx(whole.busy_and_exposed(), rel=1e-9)
    assert found.memory == tuple(peak_memory(found.program, rank) for rank in plan.mesh().ranks("pipeline"))
    assert {e.rank for e in found.trace.events if e.name == "pause"} == set(ranks)
    assert found.trace.ranks == list(range(plan.workers))
    engine = Engine(found.program, found._run.prices)
    engine.run()
    assert found.step_seconds == pytest.approx(engine.step_seconds, rel=1e-9)


# Which ranks stand for which

MANY = Plan(data=8, tensor=8, pipeline=16, micro_batches=16)
EDITS = {
    "one": (lambda p: paused(p, [77]), 4),
    "two that do alike": (lambda p: paused(p, [77, 78]), 4),
    "two of a replica": (lambda p: paused(p, [77]).edit({78: changed(p[78], "long pause", 0.4)}), 6),
    "two": (lambda p: paused(p, [77, 700]), 9),
    "a stage": (lambda p: paused(p, range(64, 128)), 4),
    "all": (lambda p: paused(p, range(1024)), 4),
    "itself": (lambda p: p.edit({77: p[77]}), 0),
    "all themselves": (lambda p: p.edit({rank: replace(p[rank]) for rank in range(1024)}), 0),
    "one twice": (lambda p: paused(p, [77]).edit({77: p[77]}), 0),
}


@pytest.mark.parametrize(("edit", "of_a_stage"), EDITS.values(), ids=EDITS)
def test_of_1024_ranks_those_are_checked_that_edits_tell_apart(monkeypatch, edit, of_a_stage):
    edited, unedited, checked = edit(program(MANY)), structure_of(program(MANY)), []
    monkeypatch.setattr(structure, "check", lambda program, ranks: checked.append(len(ranks)) or check(program, ranks))
    found = structure_of(edited)
    assert sum(checked) == of_a_stage * MANY.pipeline
    assert sum(found.counts.values()) == 1024 and found.counts.keys() == found.ranks.keys()
    if not of_a_stage:
        assert found == unedited


def test_each_rank_stands_for_those_that_do_as_it_does():
    found = structure_of(paused(program(Plan(data=4, tensor=4, pipeline=2)), [5]))  # data 1, tensor 1
    assert {found.ranks[rank]: count for rank, count in found.counts.items()} == {
        0: 9, 1: 3, 4: 3, 5: 1, 16: 9, 17: 3, 20: 3, 21: 1
    }  # fmt: skip


def sizes_of(structure, plan) -> dict[str, int]:
    """How many coordinates of each axis are run."""
    meshes = [plan.mesh(rank) for rank in structure.ranks.values()]
    return {axis: len({mesh.coordinate(axis) for mesh in meshes}) for axis in AXES if plan.axes.get(axis)}


def test_an_axis_along_which_messages_go_is_run_whole():
    """Each rank of a stage works with the next tensor rank of the other stage, which has the same activations."""

    def crossed(i, plan, rank):
        if i.kind not in PEERS:
            return i
        mesh = plan.mesh(rank)
        away = 1 if mesh.coordinate("pipeline") == 0 else -1
        peer = plan.mesh(getattr(i, PEERS[i.kind])).rank_at(tensor=(mesh.coordinate("tensor") + away) % plan.tensor)
        return replace(i, **{PEERS[i.kind]: peer})

    plan, prices = Plan(data=4, tensor=4, pipeline=2, micro_batches=3), FixedPrices({I.Forward: 1.0, I.Backward: 2.0})
    own = program(plan)
    edited = own.edit({r: replace(own[r], step=tuple(crossed(i, plan, r) for i in own[r].step)) for r in range(32)})
    found = structure_of(edited)
    assert sizes_of(found, plan) == {"pipeline": 2, "data": 2, "tensor": 4}
    assert times(found, prices) == pytest.approx(times(run_whole(edited), prices), rel=1e-9)
    late = paused(edited, [6])
    found, slow = structure_of(late), FixedPrices({**prices.seconds, Pause: 1.5})
    assert sizes_of(found, plan) == {"pipeline": 2, "data": 2, "tensor": 4}
    assert times(found, slow) == pytest.approx(times(run_whole(late), slow), rel=1e-9)


@pytest.mark.parametrize("axis", [("tensor", (0, 3)), Grid("tensor", 2, 2, "rows")], ids=str)
def test_an_axis_of_which_an_edit_names_coordinates_is_run_whole(axis):
    plan, prices = Plan(data=4, tensor=4, pipeline=2, micro_batches=2), FixedPrices({I.Forward: 1.0, Meet: 0.5})
    own = program(plan)
    ranks = [r for r in range(32) if isinstance(axis, Grid) or plan.mesh(r).coordinate("tensor") in axis[1]]
    edited = own.edit({r: replace(own[r], step=(*own[r].step, Meet((axis,)))) for r in ranks})
    found = structure_of(edited)
    assert sizes_of(found, plan) == {"pipeline": 2, "data": 2, "tensor": 4}
    assert times(found, prices) == pytest.approx(times(run_whole(edited), prices), rel=1e-9)


@pytest.mark.parametrize("peer", [-1, 32, None, "next"])
def test_a_peer_that_is_no_rank_is_refused_as_without_folding(peer):
    own = program(Plan(data=4, tensor=4, pipeline=2))
    step = tuple(replace(i, to=peer) if isinstance(i, I.SendActivation) else i for i in own[5].step)
    edited = own.edit({5: replace(own[5], step=step)})
    with pytest.raises((ProgramError, TypeError)) as expected:
        check(edited)
    with pytest.raises(type(expected.value)) as found:
        structure_of(edited)
    assert str(found.value) == str(expected.value)
