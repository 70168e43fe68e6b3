"""Pictures show one step: programs in slots, which have closed forms; traces on one axis of time; memory by kind."""

import subprocess
import sys

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from minidl import models
from minidl.parallel import Plan, ProgramError, check
from minidl.parallel.memory import peak_memory
from minidl.parallel.prepare import prepare
from minidl.plots import COLOURS, memory_figure, program_figure, timeline_figure
from minidl.trace import COLLECTIVES, COMPUTE, COPY, MESSAGES, Details, Event, Trace
from tests.parallel.programs import training


def prepared(plan):
    return prepare(models.builder("gpt-tiny"), plan, 4 * plan.data * plan.micro_batches).training


# Programs


def slots(program):
    return {(s.rank, s.instruction.name): (s.start, s.end) for s in check(program).slots if s.instruction.slots}


@pytest.mark.parametrize(("p", "m"), [(1, 1), (1, 3), (2, 2), (4, 8), (4, 2)])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_gpipe_and_1f1b_are_idle_for_the_forwards_and_backwards_of_the_other_stages(schedule, p, m):
    found = slots(training(Plan(pipeline=p, micro_batches=m, schedule=schedule)))
    assert len(found) == 2 * p * m
    assert max(end for _, end in found.values()) == 3 * (m + p - 1)
    assert all(sum(b - a for (rank, _), (a, b) in found.items() if rank == r) == 3 * m for r in range(p))


def test_in_gpipe_every_micro_batch_is_a_slot_later_on_the_next_stage_and_two_on_the_way_back():
    p, m = 4, 8
    found = slots(training(Plan(pipeline=p, micro_batches=m, schedule="gpipe")))
    for s in range(p):
        for k in range(m):
            assert found[s, f"F{k}"] == (s + k, s + k + 1)
            start = m + p - 1 + 2 * (p - 1 - s) + 2 * k
            assert found[s, f"B{k}"] == (start, start + 2)


def test_the_naive_schedule_takes_all_slots_one_after_the_other():
    assert max(end for _, end in slots(training(Plan(pipeline=3, micro_batches=4, schedule="naive"))).values()) == 36


def test_communication_takes_no_slot_and_a_backward_in_pieces_takes_two_in_all():
    report = check(training(Plan(data=2, bucket_mb=0.5)))
    pieces = [s for s in report.slots if s.rank == 0 and s.instruction.label == "B"]
    assert len(pieces) == 8 and sum(s.end - s.start for s in pieces) == 2
    assert all(s.start == s.end for s in report.slots if s.instruction.kind != "compute")
    assert max(s.end for s in report.slots) == 3


def boxes(figure):
    """(colour, left, right, row) of each box of a chart of slots, and what is written there."""
    (panel,) = figure.axes
    found = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    written = {(round(t.get_position()[0], 6), t.get_position()[1]): t.get_text() for t in panel.texts}
    for b in found:
        x, row = b.get_x() + b.get_width() / 2, round(b.get_y() + b.get_height() / 2)
        yield to_hex(b.get_facecolor()), b.get_x(), b.get_x() + b.get_width(), row, written.get((round(x, 6), row))


def test_the_chart_has_each_forward_and_backward_once_with_its_micro_batch():
    program = training(Plan(pipeline=4, micro_batches=8, schedule="1f1b"))
    names = {COLOURS["forward"]: "F", COLOURS["backward"]: "B"}
    drawn = [((row, names[colour] + text), (a, b)) for colour, a, b, row, text in boxes(program_figure(program))]
    assert len(drawn) == 64 and {key: pytest.approx(place) for key, place in drawn} == slots(program)
    assert "33 slots, 27.3% idle" in program_figure(program).axes[0].get_title(loc="left")


def test_of_many_ranks_one_of_each_stage_is_drawn():
    (panel,) = program_figure(training(Plan(data=32, pipeline=2, micro_batches=2))).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["rank 0", "rank 32"]
    assert "one rank of each stage" in panel.get_title(loc="left")


def test_a_wrong_program_is_not_drawn(tmp_path):
    program = training(Plan(pipeline=2, micro_batches=2))
    send = next(n for n, i in enumerate(program[0].step) if i.kind == "send")
    with pytest.raises(ProgramError):
        program.without(0, send).draw(tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


# Traces


def bars(*traces):
    """(colour, left, right, top, bottom) of each bar of each panel: in the unit of the axis, and rows."""
    return [
        sorted(
            (to_hex(c.get_facecolor()[0]), *(round(x, 6) for x in (*box.intervalx, *box.intervaly)))
            for c in panel.collections
            for box in (path.get_extents() for path in c.get_paths())
        )
        for panel in timeline_figure([("title", trace) for trace in traces]).axes
    ]


def test_collectives_and_messages_are_drawn_alike_below_what_is_computed():
    events = [(COMPUTE, "F0", 0.0, 0.5), (MESSAGES, "send0", 0.25, 0.5), (COLLECTIVES, "reduce 0", 0.5, 0.75)]
    assert bars(Trace(Event(0, *event) for event in events)) == [sorted([
        (COLOURS["forward"], 0, 500, -0.4, 0.1),
        (COLOURS["communication"], 250, 500, 0.14, 0.36),
        (COLOURS["communication"], 500, 750, 0.14, 0.36),
    ])]  # fmt: skip


def test_copies_of_a_gpu_are_drawn_below_communication_and_the_shortest_one_can_be_seen():
    copy = Event(0, COPY, "input0 to the device", 0.0, 1e-6)
    events = [copy, Event(0, COMPUTE, "F0", 0.5, 1.0), Event(0, COLLECTIVES, "reduce 0", 0.75, 1.0)]
    places = {colour: (top, bottom) for colour, _, _, top, bottom in bars(Trace(events))[0]}
    assert places[COLOURS["copy"]] == (0.38, 0.52) and places[COLOURS["communication"]] == (0.14, 0.36)
    (panel,) = timeline_figure([("", Trace(events))]).axes
    (drawn,) = (c for c in panel.collections if to_hex(c.get_facecolor()[0]) == COLOURS["copy"])
    assert to_hex(drawn.get_edgecolor()[0]) == COLOURS["copy"] and drawn.get_linewidth()[0] > 0.5
    assert panel.get_ylim()[0] > 0.52


def test_the_last_step_is_drawn_with_all_its_events_and_no_others():
    steps = [Event(0, COMPUTE, "F0", 0.0, 0.5, 0), Event(0, COLLECTIVES, "gather 0", 0.5, 0.75, 0)]
    steps += [Event(0, COMPUTE, "B0", 0.5, 1.0, 1)]
    assert bars(Trace(steps)) == [[(COLOURS["backward"], 0, 500, -0.4, 0.1)]]
    assert len(bars(Trace(steps).of_step(0))[0]) == 2


def test_a_measured_trace_and_a_simulated_one_share_the_axis_of_time():
    measured, simulated = (
        Trace([Event(0, COMPUTE, "F0", 7.0, 7 + seconds)], kind)
        for seconds, kind in ((2.0, "measured"), (0.5, "simulated"))
    )
    assert [drawn[0][1:3] for drawn in bars(measured, simulated)] == [(0, 2), (0, 0.5)]
    one, other = timeline_figure([("", measured), ("", simulated)]).axes
    assert one.get_xlim() == other.get_xlim()


def test_every_kind_of_work_has_a_colour_of_its_own_and_later_chunks_are_lighter():
    names = ["F0", "B0", "W0", "R0", "update", "loss0"]
    events = [Event(0, COMPUTE, name, n, n + 1) for n, name in enumerate(names)]
    events += [Event(0, MESSAGES, "send0", 6, 7), Event(0, COPY, "input0 to the device", 7, 8)]
    assert len({colour for colour, *_ in bars(Trace(events))[0]}) == len(COLOURS) == 8
    chunks = Trace(Event(0, COMPUTE, "F0", n, n + 1, 0, Details(0, chunk)) for n, chunk in enumerate((1, 3, 5)))
    shades = [colour for colour, left, *_ in sorted(bars(chunks)[0], key=lambda bar: bar[1])]
    assert shades[0] == COLOURS["forward"] and shades == sorted(shades) and len(set(shades)) == 3


def test_bars_bear_their_names_or_micro_batches_where_these_fit():
    events = [Event(0, COMPUTE, "F12", 0, 50, 0, Details(micro_batch=12)),
              Event(0, COMPUTE, "loss12", 50, 52.5, 0, Details(micro_batch=12)),
              Event(0, COMPUTE, "B12", 54, 54.1, 0, Details(micro_batch=12)),
              Event(0, COMPUTE, "update", 55, 100)]  # fmt: skip
    (panel,) = timeline_figure([("", Trace(events))]).axes
    assert [text.get_text() for text in panel.texts] == ["F12", "12", "update"]


# Memory


def test_the_picture_of_memory_reaches_the_peak_of_each_rank():
    program = prepared(Plan(pipeline=2, micro_batches=4))
    figure = memory_figure(program, [0, 1])
    unit = figure.axes[0].get_ylabel()
    for rank, panel in enumerate(figure.axes):
        tops = [area.get_paths()[0].get_extents().y1 for area in panel.collections]
        peak = peak_memory(program, rank).total / {"kB": 1e3, "MB": 1e6}[unit]
        assert len(tops) == 4 and tops == sorted(tops) and tops[-1] == pytest.approx(peak, rel=5e-3)
        assert panel.lines[1].get_ydata()[0] == pytest.approx(tops[-1])


def test_a_program_that_knows_no_bytes_cannot_be_asked_for_memory(tmp_path):
    with pytest.raises(ValueError, match="does not know what its buffers hold"):
        training(Plan()).draw_memory(tmp_path / "m.png")


# Files


ONE = Trace([Event(0, COMPUTE, "F0", 0.0, 1.0)])


@pytest.mark.parametrize("path", ["p.pdf", "p", "p.png.gz"])
def test_a_wrong_ending_is_refused_before_anything_is_drawn(tmp_path, monkeypatch, path):
    monkeypatch.setattr("minidl.plots.Figure", None)
    program = prepared(Plan())
    for draw in (ONE.draw, program.draw, program.draw_memory):
        with pytest.raises(ValueError, match=rf"{path}' does not end in \.png or \.svg$"):
            draw(tmp_path / path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "start"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.PNG", b"\x89PNG")])
def test_the_ending_is_the_format(tmp_path, name, start):
    program = prepared(Plan(pipeline=2, micro_batches=2))
    for draw in (lambda path: ONE.draw(path, ONE), program.draw, program.draw_memory):
        draw(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
        (tmp_path / name).unlink()


def test_an_empty_trace_has_no_picture(tmp_path):
    with pytest.raises(ValueError, match="the trace is empty"):
        Trace([]).draw(tmp_path / "t.png")


def test_matplotlib_is_loaded_by_who_draws_alone():
    who_does_not = "minidl.parallel.runtime.steps, minidl.commands.train, simulator.commands.predict"
    code = f"import minidl, {who_does_not}, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
