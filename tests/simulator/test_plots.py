"""A timeline shows one step: what ranks compute, and all their communication below it."""

from matplotlib.colors import to_hex

from minidl.trace import COLLECTIVES, COMPUTE, MESSAGES, Event, Trace
from simulator.plots import COLOURS, LEGEND, timeline_figure


def bars(trace, **options):
    """(colour, left, right, top, bottom) of each bar: milliseconds and rows."""
    (axes,) = timeline_figure([("title", trace)], **options).axes
    boxes = [(to_hex(c.get_facecolor()[0]), path.get_extents()) for c in axes.collections for path in c.get_paths()]
    return sorted((colour, *(round(x, 6) for x in (*b.intervalx, *b.intervaly))) for colour, b in boxes)


def test_collectives_and_messages_are_drawn_alike_below_what_is_computed():
    events = [(COMPUTE, "F0", 0.0, 0.5), (MESSAGES, "send0", 0.25, 0.5), (COLLECTIVES, "reduce 0", 0.5, 0.75)]
    drawn = bars(Trace(Event(0, *event) for event in events))
    assert drawn == sorted([
        (COLOURS["F"], 0, 500, -0.4, 0.1),
        (LEGEND["communication"], 250, 500, 0.14, 0.36),
        (LEGEND["communication"], 500, 750, 0.14, 0.36),
    ])  # fmt: skip


def test_of_two_steps_the_later_one_is_drawn_with_all_its_events_and_no_others():
    steps = [Event(0, COMPUTE, "F0", 0.0, 0.5, 0), Event(0, COLLECTIVES, "gather 0", 0.5, 0.75, 0)]
    steps += [Event(0, COMPUTE, "B0", 0.5, 1.0, 1)]
    assert bars(Trace(steps)) == [(COLOURS["B"], 0, 500, -0.4, 0.1)]
    assert len(bars(Trace(steps), step=0)) == 2
