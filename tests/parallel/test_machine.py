"""The machine: whatever order its lanes run in, every instruction reads what it reads in the order of the list."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.instructions import BufferName
from minidl.parallel.instructions.instruction import Touched
from minidl.parallel.layout import layout
from minidl.parallel.machine import Entry, HazardError, Lanes, compile_list
from minidl.trace import COLLECTIVES, COMPUTE

X, Y, Z = [BufferName(holds) for holds in "xyz"]


@dataclass(frozen=True, repr=False)
class Step(I.Instruction):
    """An instruction that touches what it is told to."""

    what: str
    on: str = "A"
    read: tuple = ()
    write: tuple = ()
    free: tuple = ()

    @property
    def lane(self):
        return self.on

    def touches(self):
        return Touched(self.read, self.write, self.free)

    def __repr__(self):
        return self.what


def after(instructions, persistent=()):
    """instruction -> lane -> for how many of its instructions it waits."""
    lanes = compile_list(instructions, persistent)
    return {entry.instruction.what: dict(entry.after) for entries in lanes.values() for entry in entries}


# For whom an instruction waits


def test_a_reader_waits_for_the_writer():
    write, read = Step("write", "A", write=(X,)), Step("read", "B", read=(X,), free=(X,))
    assert after([write, Step("other"), read])["read"] == {"A": 1}


def test_whoever_changes_or_frees_a_buffer_waits_for_its_readers_on_other_lanes():
    write, read, late = Step("write", "A", write=(X,)), Step("read", "B", read=(X,)), Step("late", "C", read=(X,))
    free = Step("free", "A", read=(X,), free=(X,))
    assert after([write, read, late, free])["free"] == {"B": 1, "C": 1}
    change = Step("change", "A", read=(X,), write=(X,))
    assert after([write, read, late, change, free])["change"] == {"B": 1, "C": 1}


def test_who_writes_again_waits_for_who_wrote_or_freed_before():
    change = Step("change", "A", read=(X,), write=(X,))
    assert after([change, Step("again", "B", read=(X,), write=(X,))], [X]) == {"change": {"B": 0}, "again": {"A": 1}}
    free, write = Step("free", "A", read=(X,), free=(X,)), Step("write", "B", write=(X,))
    assert after([free, write], [X]) == {"free": {"B": 0}, "write": {"A": 1}}


def test_of_several_on_a_lane_the_last_is_waited_for():
    one, two = Step("one", "A", write=(X,)), Step("two", "A", write=(Y,))
    assert after([one, two, Step("read", "B", read=(X, Y), free=(X, Y))])["read"] == {"A": 2}


def test_what_the_own_lane_implies_is_no_entry():
    instructions = [
        Step("write", write=(X,)), Step("read", read=(X,)), Step("change", read=(X,), write=(X,)),
        Step("free", read=(X,), free=(X,)), Step("update", read=(Y,), write=(Y,)),
    ]  # fmt: skip
    assert compile_list(instructions, [Y]) == {"A": tuple(Entry(i, ()) for i in instructions)}


def test_instructions_wait_for_those_of_the_step_before():
    update, read = Step("update", "A", read=(X,), write=(X,)), Step("read", "B", read=(X,))
    assert after([update, read], [X]) == {"update": {"B": 0}, "read": {"A": 1}}
    idle = [Step(f"idle {n}", "B") for n in range(2)]
    assert after([update, read, *idle], [X])["update"] == {"B": -2}  # the first of three
    assert after([read, update], [X]) == {"read": {"A": 0}, "update": {"B": 1}}


def test_what_a_step_makes_and_frees_is_made_again_only_when_the_step_before_has_freed_it():
    write, read = Step("write", "A", write=(X,)), Step("read", "B", read=(X,), free=(X,))
    assert after([write, read, Step("idle", "B")]) == {"write": {"B": -1}, "read": {"A": 1}, "idle": {}}


def test_persistent_buffers_may_be_freed_and_made_again_within_a_step():
    drop, fetch, use = Step("drop", read=(X,), free=(X,)), Step("fetch", "B", write=(X,)), Step("use", read=(X,))
    assert after([use, drop, fetch], [X]) == {"use": {"B": 0}, "drop": {"B": 0}, "fetch": {"A": 2}}


def test_only_the_lanes_of_the_list_are_made_in_the_order_in_which_they_come():
    assert list(compile_list([Step("one", "B"), Step("two", "A"), Step("three", "B")], [])) == ["B", "A"]


# Hazards


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([Step("one", read=(X,))], "one reads the x, which nothing writes before"),
        (
            [Step("one", write=(X,)), Step("two", read=(X,), free=(X,)), Step("three", "B", read=(X,))],
            "three reads the x, which is freed before",
        ),
        (
            [Step("one", write=(X,)), Step("two", "B", write=(X,))],
            "two frees or overwrites the x, which it does not read",
        ),
        ([Step("one", write=(Y,))], "one frees or overwrites the y, which it does not read"),
        ([Step("one", write=(X,)), Step("two", free=(X,))], "two frees or overwrites the x, which it does not read"),
        ([Step("one", free=(X,))], "one frees or overwrites the x, which it does not read"),
        ([Step("one", write=(X, Z))], "at the end of a step, never freed: the x, the z"),
        ([Step("one", read=(Y,), free=(Y,))], "at the end of a step, lost: the y"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_list_that_is_no_legal_program_is_refused_by_instruction_and_buffer(instructions, message):
    with pytest.raises(HazardError, match=message):
        compile_list(instructions, [Y])


def test_a_buffer_that_an_instruction_both_writes_and_frees_is_refused():
    with pytest.raises(HazardError, match=r"both.* frees .*, which it writes"):
        compile_list([Step("both", "A", read=(X,), write=(X,), free=(X,))], [X])


def test_a_buffer_is_named_by_what_it_holds_and_where():
    assert str(BufferName("saved", 1, 0, 2)) == "saved of chunk 1, micro-batch 0, bucket 2"
    assert str(BufferName("target", micro_batch=3)) == "target of micro-batch 3"


# Lanes


def test_lanes_say_what_may_start_over_two_steps():
    update, read = Step("update", "A", read=(X,), write=(X,)), Step("read", "B", read=(X,))
    lanes = Lanes(compile_list([update, read], [X]), steps=2)
    assert lanes.unfinished() == [update, read]
    assert (lanes["A"].ready(), lanes["B"].ready()) == (update, None)
    lanes["A"].begin()
    assert (lanes["A"].ready(), lanes["B"].ready(), lanes["A"].step) == (None, None, 0)
    lanes["A"].finish()
    assert (lanes["A"].ready(), lanes["B"].ready()) == (None, read)  # the next update would change what is read
    lanes["B"].begin()
    assert lanes["A"].ready() is None
    lanes["B"].finish()
    assert (lanes["A"].ready(), lanes["B"].ready(), lanes["B"].step) == (update, None, 0)
    lanes["A"].begin()
    assert lanes["A"].step == 1
    assert lanes.unfinished() == [update, read]
    lanes["A"].finish()
    assert lanes.unfinished() == [read]
    lanes["B"].begin()
    lanes["B"].finish()
    assert (lanes["A"].ready(), lanes["B"].ready(), lanes["B"].step, lanes.unfinished()) == (None, None, 1, [])
    lanes.allow_step()
    assert (lanes["A"].ready(), lanes["B"].ready(), lanes.unfinished()) == (update, None, [update, read])


class Course:
    """A run of lanes. What an instruction writes is what it has read, and who it is; half done, it is of no use."""

    def __init__(self, persistent):
        self.values = {buffer: ("start", str(buffer)) for buffer in persistent}
        self.seen: dict[tuple[int, str], int] = {}  # (step, instruction) -> what it has read
        self.running: dict[str, tuple] = {}

    def begin(self, step, i):
        found = {buffer: self.values[buffer] for buffer in i.reads}
        self.seen[step, i.what] = hash(tuple(found.items()))
        changed = {*i.writes, *i.frees}
        self.values |= {buffer: ("half done", i.what) for buffer in changed}
        self.running[i.lane] = step, i, {buffer: value for buffer, value in found.items() if buffer not in changed}

    def finish(self, lane):
        step, i, read = self.running.pop(lane)
        assert read == {buffer: self.values.get(buffer) for buffer in read}, f"{i} loses what it reads"
        for buffer in i.frees:
            del self.values[buffer]
        for buffer in i.writes:
            self.values[buffer] = i.what, str(buffer), self.seen[step, i.what]


def in_order(instructions, persistent, steps):
    course = Course(persistent)
    for step in range(steps):
        for i in instructions:
            course.begin(step, i)
            course.finish(i.lane)
    return course.seen, course.values


def by_lanes(schedule, persistent, steps, choose):
    """Whatever may begin or end at a time, one of it does: `choose` says which."""
    course, lanes = Course(persistent), Lanes(schedule, steps)
    while moves := [
        *(("begin", lane) for lane in lanes.values() if lane.ready()),
        *(("finish", lanes[name]) for name in course.running),
    ]:
        move, lane = choose(moves)
        if move == "begin":
            i = lane.ready()
            lane.begin()
            course.begin(lane.step, i)
        else:
            course.finish(lane.name)
            lane.finish()
    assert not lanes.unfinished()
    return course.seen, course.values


@st.composite
def legal_lists(draw):
    """(list, persistent buffers): every instruction reads, changes, frees or makes some of four buffers."""
    names = [BufferName(holds) for holds in "wxyz"]
    persistent = draw(st.sets(st.sampled_from(names)))
    lanes = st.sampled_from("ABC")
    held, instructions = set(persistent), []
    for number in range(draw(st.integers(1, 10))):
        touched = {name: draw(st.integers(0, 3 if name in held else 1)) for name in names}
        read = tuple(name for name in names if name in held and touched[name])
        free = tuple(name for name in read if touched[name] == 3)
        write = tuple(name for name in names if touched[name] == (2 if name in held else 1))
        instructions.append(Step(str(number), draw(lanes), read, write, free))
        held = held - {*free} | {*write}
    for name in names:
        if name in held - persistent:
            instructions.append(Step(f"free {name}", draw(lanes), read=(name,), free=(name,)))
        if name in persistent - held:
            instructions.append(Step(f"make {name}", draw(lanes), write=(name,)))
    return instructions, persistent


@given(legal_lists(), st.randoms(use_true_random=False))
def test_in_any_order_that_lanes_allow_every_instruction_reads_what_it_reads_in_the_order_of_the_list(case, random):
    instructions, persistent = case
    expected = in_order(instructions, persistent, steps=3)
    schedule = compile_list(instructions, persistent)
    assert by_lanes(schedule, persistent, 3, random.choice) == expected
    for first_choice in (lambda moves: moves[0], lambda moves: moves[-1]):
        assert by_lanes(schedule, persistent, 3, first_choice) == expected


def test_without_waiting_an_instruction_would_read_something_else():
    update, read = Step("update", "A", read=(X,), write=(X,)), Step("read", "B", read=(X,))
    expected = in_order([update, read], [X], steps=2)

    def goes_wrong(schedule, choose):
        try:
            return by_lanes(schedule, [X], 2, choose) != expected
        except AssertionError:
            return True

    for hasty in (update, read):
        schedule = compile_list([update, read], [X]) | {hasty.lane: (Entry(hasty, ()),)}
        assert goes_wrong(schedule, lambda moves: moves[0]) or goes_wrong(schedule, lambda moves: moves[-1])


# What overlaps


def test_with_a_sharded_optimizer_parameters_are_gathered_while_the_next_step_goes_forward():
    plan = Plan(data=2, sharding="optimizer")
    program = training_program(plan, layout(plan, [1.0] * 2, [2**20] * 2))
    lanes = Lanes(program.compiled(0), steps=2)

    def go_on(lane):
        i = lanes[lane].ready()
        assert i is not None, lane
        lanes[lane].begin()
        lanes[lane].finish()
        return i

    while not isinstance(lanes[COMPUTE].ready(), I.OptimizerStep):
        go_on(COMPUTE if lanes[COMPUTE].ready() else COLLECTIVES)
    go_on(COMPUTE)
    assert isinstance(go_on(COMPUTE), I.LoadInput)
    assert lanes[COMPUTE].ready() is None  # the first bucket is not there yet
    assert go_on(COLLECTIVES) == I.GatherParameters(0, 0)
    assert lanes[COMPUTE].ready() == I.Forward(0, 0, 0, 0, trained=0, recomputed=False)
    lanes[COMPUTE].begin()
    assert lanes[COMPUTE].step == 1
    assert lanes[COLLECTIVES].ready() == I.GatherParameters(0, 1)  # of step 0, while that forward runs
    lanes[COLLECTIVES].begin()
    assert lanes[COLLECTIVES].step == 0
    lanes[COMPUTE].finish()
    assert lanes[COMPUTE].ready() is None
    lanes[COLLECTIVES].finish()
    assert lanes[COMPUTE].ready() == I.Forward(0, 0, 1, 1, trained=0, recomputed=False)
