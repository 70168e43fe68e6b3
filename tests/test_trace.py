"""Trace: its numbers on traces small enough to add up by hand, and its file."""

import json
import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.trace import COLLECTIVES, COMPUTE, COPY, LANES, MESSAGES, Details, Event, Trace, idle_name
from minidl.units import duration


def trace(*rows, step=0):
    """Rows (rank, lane, start, end)."""
    lanes = {"c": COMPUTE, "g": COLLECTIVES, "m": MESSAGES}
    return [Event(rank, lanes[lane], f"{lane}{start}", start, end, step) for rank, lane, start, end in rows]


HALF_HIDDEN = trace(
    (0, "c", 0, 4), (0, "m", 3, 6), (0, "c", 7, 10),  # busy 7 of 10, exposed 2, idle 1
    (1, "c", 2, 4), (1, "c", 4, 8),                   # busy 6, exposed 0, idle 4
)  # fmt: skip


def test_busy_exposed_and_bubble_add_up_to_the_step():
    t = Trace(HALF_HIDDEN)
    assert t.step_seconds == 10
    assert [t.busy_fraction(rank) for rank in t.ranks] == [0.7, 0.6]
    assert t.exposed_communication == pytest.approx((2 + 0) / 2)
    assert t.bubble_fraction == pytest.approx((0.1 + 0.4) / 2)


def test_events_that_overlap_in_a_lane_are_counted_once():
    t = Trace(trace((0, "c", 0, 4), (0, "c", 1, 3), (0, "c", 2, 5), (0, "c", 8, 10), (0, "m", 1, 9), (0, "m", 2, 3)))
    assert t.busy_fraction(0) == pytest.approx(0.7)
    assert t.exposed_communication == pytest.approx(3)
    assert t.bubble_fraction == 0


def test_collectives_and_messages_are_both_communication():
    t = Trace(trace((0, "c", 0, 2), (0, "g", 1, 4), (0, "m", 3, 6), (0, "c", 9, 10)))
    assert t.exposed_communication == 4
    assert t.bubble_fraction == pytest.approx(0.3)


def test_of_several_steps_the_median_counts_and_the_first_one_does_not():
    steps = [trace((0, "c", 0, 9), step=0), trace((0, "c", 10, 12), (0, "m", 12, 14), step=1)]
    steps += [trace((0, "c", 20, 25), (0, "c", 25, 30), step=2)]
    steps += [trace((0, "c", 40, 41), (0, "c", 44, 45), step=3), trace((0, "c", 50, 55), step=4)]
    t = Trace(event for step in reversed(steps) for event in step)
    assert t.step_seconds == 5
    assert [len(step.events) for step in t.steps()] == [1, 2, 2, 2, 1]
    assert (t.busy_fraction(0), t.exposed_communication, t.bubble_fraction) == (1, 0, 0)
    assert t.of_step(1).busy_fraction(0) == 0.5
    assert t.of_step(1).exposed_communication == 2


def test_a_rank_that_does_nothing_in_a_step_is_idle_in_it():
    first = trace((0, "c", 0, 2), (1, "c", 0, 2), step=0)
    t = Trace(first + trace((0, "c", 2, 4), (1, "c", 2, 3), step=1) + trace((0, "c", 5, 7), step=2))
    assert t.busy_fraction(1) == pytest.approx((0.5 + 0) / 2)
    assert t.bubble_fraction == pytest.approx((0 + 0.5 + 0 + 1) / 4)


OVERLAPPING = [
    *trace((0, "c", 0, 4), (0, "g", 4, 7), (1, "c", 0, 5), (1, "g", 5, 8), step=0),
    *trace((0, "c", 4, 9), (0, "g", 9, 12), (1, "c", 6, 10), (1, "m", 10, 13), step=1),
    *trace((0, "c", 9, 14), (0, "g", 14, 20), (1, "c", 11, 12), (1, "c", 14, 18), step=2),
]


def test_a_step_that_overlaps_others_is_looked_at_from_the_end_of_the_one_before_to_its_own():
    t = Trace(OVERLAPPING)
    assert t.windows == [(5, 10), (10, 18)]  # the compute lanes of the steps end at 5, 10 and 18
    assert t.step_seconds == (5 + 8) / 2
    assert t.busy_fraction(0) == pytest.approx((5 / 5 + 4 / 8) / 2)  # 5 to 9 of step 1, and 9 to 10 and 10 to 14 of 2
    assert t.busy_fraction(1) == pytest.approx((4 / 5 + 5 / 8) / 2)
    # From 5 to 10 only rank 1 waits, 1 s, for the gather of step 0. From 10 to 18, 4 s of the last gather of rank 0 and
    # 2 s of the message of rank 1 are exposed, and rank 1 is idle from 13 to 14.
    assert t.exposed_communication == pytest.approx(((0 + 1) / 2 + (4 + 2) / 2) / 2)
    assert t.bubble_fraction == pytest.approx((0 + (0 + 1 / 8) / 2) / 2)


def test_a_gather_is_exposed_in_the_next_step_as_far_as_its_forward_does_not_hide_it():
    steps = [
        trace((0, "c", t, t + 2), (0, "c", t + 5, t + 10), (0, "g", t + 10, t + 14), step=step)
        for step, t in enumerate((0, 10, 20, 30))
    ]
    t = Trace(event for step in steps for event in step)
    assert (t.step_seconds, t.busy_fraction(0)) == (10, 0.7)
    assert t.exposed_communication == 2 and t.bubble_fraction == pytest.approx(0.1)


def test_a_single_step_is_looked_at_from_its_first_event_to_its_last():
    t = Trace(OVERLAPPING)
    assert [step.windows for step in t.steps()] == [[(0, 8)], [(4, 13)], [(9, 20)]]
    assert [step.step_seconds for step in t.steps()] == [8, 9, 11]
    assert t.of_step(2).busy_fraction(0) == pytest.approx(5 / 11)


def test_a_step_begins_with_its_first_event_where_there_was_a_pause_before_it():
    t = Trace(trace((0, "c", 0, 2), step=4) + trace((0, "g", 5, 6), (0, "c", 6, 8), (0, "g", 8, 9), step=5))
    assert t.windows == [(5, 8)]


def test_a_step_without_computation_ends_with_its_last_event():
    t = Trace(trace((0, "m", 0, 3), step=0) + trace((0, "g", 2, 5), (1, "m", 3, 7), step=1))
    assert t.windows == [(3, 7)] and t.exposed_communication == (2 + 4) / 2


PARTS = st.tuples(st.integers(0, 3), st.sampled_from(LANES), st.integers(0, 40), st.integers(0, 40))


@given(st.lists(st.tuples(st.integers(1, 40), st.lists(PARTS, max_size=5)), min_size=2, max_size=6))
def test_the_periods_of_steps_that_follow_one_another_sum_to_the_time_they_all_take(steps):
    now, events = 0, []
    for step, (length, parts) in enumerate(steps):
        events.append(Event(0, COMPUTE, "all", now, now + length, step))
        for rank, lane, *times in parts:
            start, end = sorted(now + time % (length + 1) for time in times)
            events.append(Event(rank, lane, "part", start, end, step))
        now += length
    t, lengths = Trace(events), [length for length, _ in steps[1:]]
    assert [end - start for start, end in t.windows] == lengths
    assert sum(lengths) == now - steps[0][0] and t.step_seconds == statistics.median(lengths)
    assert t.busy_fraction(0) == 1


def test_an_event_of_no_duration_is_no_division_by_zero():
    t = Trace(trace((0, "c", 1, 1)))
    assert (t.step_seconds, t.busy_fraction(0), t.bubble_fraction, t.exposed_communication) == (0, 0, 0, 0)


def test_an_empty_trace_says_so():
    assert Trace([]).ranks == [] and Trace([]).steps() == []
    with pytest.raises(ValueError, match="the trace is empty"):
        Trace([]).step_seconds  # noqa: B018


NUMBERS = st.none() | st.integers(0, 1 << 40)
DETAILS = st.builds(
    Details,
    stage=st.integers(0, 9),
    chunk=NUMBERS,
    blocks=st.none() | st.tuples(st.integers(0, 9), st.integers(10, 20)),
    micro_batch=NUMBERS,
    nbytes=NUMBERS,
    to=st.none() | st.integers(0, 3),
    source=st.none() | st.integers(0, 3),
    message=st.sampled_from((None, "activation", "gradient")),
)
EVENTS = st.builds(
    lambda rank, lane, name, start, length, step, details: Event(
        rank, lane, name, start, start + length, step, details
    ),
    st.integers(0, 3),
    st.sampled_from(LANES),
    st.text(max_size=5),
    st.floats(0, 1e4),
    st.floats(0, 10),
    st.integers(0, 3),
    st.none() | DETAILS,
)


@given(events=st.lists(EVENTS, min_size=1))
def test_the_fractions_of_any_trace_are_fractions_and_add_up(events):
    t = Trace(events)
    exposed = t.exposed_communication
    assert exposed >= 0 and -1e-9 <= t.bubble_fraction <= 1 + 1e-9
    assert all(-1e-9 <= t.busy_fraction(rank) <= 1 + 1e-9 for rank in t.ranks)
    assert all(start <= end for start, end in t.windows) and all(a[1] <= b[0] for a, b in pairwise(t.windows))
    assert len(t.windows) == max(1, len(t.steps()) - 1)
    for step in t.steps():
        if step.step_seconds > 0 and step.ranks == t.ranks:
            busy = sum(step.busy_fraction(rank) for rank in step.ranks) / len(step.ranks)
            shown = step.exposed_communication / step.step_seconds
            assert busy + shown + step.bubble_fraction == pytest.approx(1)


@given(events=st.lists(EVENTS, max_size=20), kind=st.sampled_from(["measured", "simulated"]))
def test_a_trace_that_is_saved_and_loaded_is_the_same(tmp_path_factory, events, kind):
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    original = Trace(events, kind)
    original.save(path)
    loaded = Trace.load(path)
    assert (loaded.kind, loaded.workers) == (kind, original.workers) and len(loaded.events) == len(events)
    zero = min((e.start for e in events), default=0)
    for before, after in zip(original.events, loaded.events, strict=True):
        assert before[:3] == after[:3] and before[5:] == after[5:]
        assert (after.start, after.end) == pytest.approx((before.start - zero, before.end - zero), abs=1e-9)


def test_the_file_has_one_process_a_rank_and_one_thread_a_lane_in_microseconds(tmp_path):
    Trace(HALF_HIDDEN).save(tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text())
    rows = document["traceEvents"]
    processes = {r["pid"]: r["args"]["name"] for r in rows if r["name"] == "process_name"}
    threads = {(r["pid"], r["tid"]): r["args"]["name"] for r in rows if r["name"] == "thread_name"}
    assert processes == {0: "rank 0", 1: "rank 1"}
    assert threads == {
        (rank, thread): lane
        for rank in (0, 1)
        for thread, lane in enumerate(("compute", "collectives", "messages", "copy"))
    }
    slices = [r for r in rows if r["ph"] == "X"]
    assert len(slices) == 5 and min(r["ts"] for r in slices) == 0
    assert next(r for r in slices if r["name"] == "m3") | {"args": 0, "cat": 0} == {
        "ph": "X", "name": "m3", "cat": 0, "pid": 0, "tid": 2, "ts": 3e6, "dur": 3e6, "args": 0,
    }  # fmt: skip


def test_copies_that_overlap_lie_on_threads_of_their_own(tmp_path):
    spans = [(0, 4), (1, 2), (3, 6), (4, 5), (7, 8)]
    events = [Event(rank, COPY, f"c{start}", start, end) for rank in (0, 1) for start, end in spans[: 5 - 4 * rank]]
    Trace(events).save(tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    copies = [(r["pid"], r["tid"]) for r in rows if r["name"] == "thread_name" and r["args"]["name"] == COPY]
    assert copies == [(0, 3), (0, 4), (1, 3)]
    on = {r["name"]: r["tid"] for r in rows if r["ph"] == "X" and r["pid"] == 0}
    assert on == {"c0": 3, "c1": 4, "c3": 4, "c4": 3, "c7": 3}
    assert [e.lane for e in Trace.load(tmp_path / "t.json").events] == [COPY] * len(events)


def message(rank, way, start, end, step=0, what="activation", peer=None):
    """A message of rank 0 to rank 1, or of `rank` to or from its `peer`, as one of the two sees it."""
    other = 1 - rank if peer is None else peer
    details = Details(message=what, to=other) if way == "send" else Details(message=what, source=other)
    return Event(rank, MESSAGES, way, start, end, step, details)


def test_an_arrow_goes_from_the_kth_send_to_the_kth_receive_of_the_same_step_and_ends_within_them(tmp_path):
    events = [
        message(0, "send", 0, 2), message(0, "send", 4, 6), message(0, "send", 20, 22, step=1),
        message(1, "recv", 3, 5), message(1, "recv", 8, 10), message(1, "recv", 24, 26, step=1),
        message(1, "send", 7, 9, what="gradient"), message(0, "recv", 9, 13, what="gradient"),
        message(1, "send", 11, 12, peer=2),  # nothing is told of rank 2
        Event(0, COMPUTE, "F0", 0, 30, 0, Details(chunk=0)),
    ]  # fmt: skip
    Trace(events, workers=3).save(tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    tails, heads = ({r["id"]: r for r in rows if r["ph"] == phase} for phase in "sf")
    found = {(tail["name"], tail["pid"], tail["ts"] / 1e6, heads[i]["pid"], round(heads[i]["ts"] / 1e6, 6))
             for i, tail in tails.items()}  # fmt: skip
    assert found == {
        ("activation", 0, 0, 1, 4.98), ("activation", 0, 4, 1, 9.98), ("activation", 0, 20, 1, 25.98),
        ("gradient", 1, 7, 0, 12.96),
    }  # fmt: skip
    assert len(tails) == len(heads) == 4
    assert all(r["tid"] == LANES.index(MESSAGES) and r["cat"] == "message" for r in (*tails.values(), *heads.values()))
    assert all(head["bp"] == "e" and head["name"] == tails[i]["name"] for i, head in heads.items())


def test_a_slice_says_what_it_was_about(tmp_path):
    details = Details(stage=1, chunk=3, blocks=(4, 7), micro_batch=2, nbytes=4096)
    Trace([Event(0, COMPUTE, "F2", 0, 1, 5, details)]).save(tmp_path / "t.json")
    rows = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert rows[-1]["args"] == {
        "step": 5, "stage": 1, "chunk": 3, "blocks": [4, 7], "micro_batch": 2, "nbytes": 4096,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"traceEvents": [{"ph": "X"}]}', '{"traceEvents": 3}', "\xff\xfe"])
def test_any_other_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"^{path} is (not a trace that minidl saved|no JSON file): "):
        Trace.load(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tid": 4}, "thread 4 of rank 0 is the lane None, and none of compute, collectives, messages, copy"),
        ({"tid": -1}, "thread -1 of rank 0 is the lane None"),
        ({"tid": "compute"}, "is no event of a rank"),
        ({"pid": -1}, "rank -1, step 0: they must be whole numbers from 0 on"),
        ({"pid": 0.5}, "rank 0.5"),
        ({"pid": True}, "rank True"),
        ({"pid": [1]}, r"rank \[1\]"),
        ({"args": {"step": None}}, "step None"),
        ({"args": 3}, "is no event of a rank"),
        ({"args": {"step": 0, "chunk": -1}}, "'c7' has 'chunk': -1"),
        ({"args": {"step": 0, "blocks": [3, 2]}}, r"'c7' has 'blocks': \[3, 2\]"),
        ({"args": {"step": 0, "colour": 1}}, "'c7' has 'colour': 1"),
        ({"name": 3}, "is no event of a rank"),
        ({"ph": "B"}, "is no event of a rank"),
        ({"ts": -1.0}, "'c7' begins at -1.0 and takes 3000000.0 microseconds: they must be finite, and not below 0"),
        ({"ts": math.nan}, "begins at nan"),
        ({"dur": math.inf}, "takes inf"),
        ({"dur": -1}, "takes -1"),
        ({"dur": "1"}, "takes '1'"),
        ({"ts": 1.7e308, "dur": 1.7e308}, "must be finite"),
        ({"ts": 10**400}, "must be finite"),
    ],
)
def test_a_wrong_event_of_a_file_is_said_in_one_sentence(tmp_path, wrong, message):
    path = tmp_path / "t.json"
    Trace(HALF_HIDDEN).save(path)
    document = json.loads(path.read_text())
    document["traceEvents"][-1] |= wrong
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"^{path} is not a trace that minidl saved: .*{message}") as caught:
        Trace.load(path)
    assert "\n" not in str(caught.value)


def test_a_lane_is_known_by_its_name_wherever_the_file_has_put_it(tmp_path):
    path = tmp_path / "t.json"
    Trace(HALF_HIDDEN).save(path)
    document = json.loads(path.read_text())
    for row in document["traceEvents"]:
        if "tid" in row:
            row["tid"] = 7 - row["tid"]
    path.write_text(json.dumps(document))
    assert Trace.load(path).events == Trace(HALF_HIDDEN).events


def test_the_one_communication_lane_of_an_older_file_is_that_of_the_collectives(tmp_path):
    path = tmp_path / "t.json"
    written = trace((0, "c", 0, 4), (0, "g", 3, 6), (1, "g", 2, 6))
    Trace(written).save(path)
    path.write_text(path.read_text().replace('"collectives"', '"communication"'))
    assert "collectives" not in path.read_text()
    assert Trace.load(path).events == Trace(written).events


def test_a_file_that_is_missing_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none.json")


# What is shown


EVENTS = st.builds(
    lambda rank, lane, start, length, step: Event(rank, lane, "x", start, start + length, step),
    st.integers(0, 40), st.sampled_from((COMPUTE, COLLECTIVES, MESSAGES)), st.floats(0, 1e6), st.floats(0, 1e6),
    st.integers(0, 3),
)  # fmt: skip


@given(st.lists(EVENTS, max_size=60), st.sampled_from(("measured", "simulated")))
def test_a_trace_shows_its_own_numbers_within_80_columns(events, kind):
    t = Trace(events, kind)
    shown, text = " ".join(str(t).split()), str(t)
    assert all(len(line) <= 80 for line in text.splitlines()) and "\n" not in repr(t)
    if not events:
        assert text == f"Trace, {kind}: no events" and repr(t) == f"<Trace of 0 ranks, {kind}: no events>"
        return
    busy = [t.busy_fraction(rank) for rank in t.ranks]
    for fact in (
        f"Trace, {kind} ranks {len(t.ranks)} steps {len(t.steps())}, of ",
        f"step time, median {duration(t.step_seconds)} busy {sum(busy) / len(busy):.1%} of a step",
        f"exposed communication {duration(t.exposed_communication)} of a step",
        f"{'bubble' if len(t.ranks) > 1 else 'idle'} {t.bubble_fraction:.1%} of a step",
    ):
        assert fact in shown
    by_rank = [f"{share:.1%}" for share in busy]
    if len(by_rank) > 8:
        by_rank[4:-4] = [f"… {len(by_rank) - 8} more …"]
    assert (f"; by rank {', '.join(by_rank)} exposed" in shown) == (len(busy) > 1)
    assert duration(t.step_seconds) in repr(t)


def test_a_trace_in_one_line_says_how_much_it_holds():
    assert repr(Trace(HALF_HIDDEN)) == "<Trace of 2 ranks, measured: 1 step, 10 s each>"


def test_one_worker_is_idle_where_several_have_bubbles():
    assert [idle_name(workers) for workers in (1, 2, 1024)] == ["idle", "bubble", "bubble"]


def test_events_of_one_rank_of_several_workers_are_told_from_those_of_one_worker(tmp_path):
    some = Trace(ONE_OF_EIGHT := [e for e in HALF_HIDDEN if e.rank == 0], workers=8)
    some.save(tmp_path / "t.json")
    for t in (some, Trace.load(tmp_path / "t.json"), some.of_step(0), *some.steps()):
        assert t.idle_name == "bubble" and "ranks 1 of 8 steps" in " ".join(str(t).split())
    assert Trace(ONE_OF_EIGHT).idle_name == "idle"
    with pytest.raises(ValueError, match="there are events of 2 ranks, and only 1 worker"):
        Trace(HALF_HIDDEN, workers=1)
