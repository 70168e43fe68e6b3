"""The picture of a comparison: what stands on it, and that nothing stands on anything else."""

from dataclasses import replace
from itertools import combinations

import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from minidl.parallel.mesh import AXES
from simulator.compare import MEASURES, WAS_BUSY, Comparison
from simulator.figures import MARKERS, comparison_figure
from tests.simulator.comparisons import PLANS, tiny_comparison

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(scope="module")
def comparison(warm_workers) -> Comparison:
    return tiny_comparison(rounds=1)


def with_models(comparison: Comparison, *names: str, **changes) -> Comparison:
    """A comparison of several models, which all did the same."""
    rows = [replace(row, model=name, **changes) for name in names for row in comparison.rows]
    return replace(comparison, rows=rows, predictions=comparison.predictions * len(names))


def busy(comparison: Comparison) -> Comparison:
    """The same, but the machine was once half as fast."""
    first, *others = comparison.rows
    return replace(comparison, rows=[replace(first, drift=2 * first.drift), *others])


def texts(figure) -> list:
    """The texts that are drawn; not those of ticks beyond the end of an axis."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        first, last = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not first <= tick.get_loc() <= last}
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
            and text not in beyond]  # fmt: skip


def test_the_first_panel_shows_speedup_against_workers_with_the_ideal_up_to_the_cores(comparison):
    machine = comparison.machine | {"cores": 1}
    figure = comparison_figure(replace(comparison, machine=machine))
    axes = figure.axes[0]
    assert "speedup" in axes.get_title(loc="left") and axes.get_xlabel() == "workers"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]
    ideal = [tuple(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 2]
    assert ideal == [(1, 1), (1, 1)]
    assert "more workers than cores" in [text.get_text() for text in axes.texts]
    shown = sorted(y for line in axes.lines if line.get_marker() in MARKERS.values() for y in line.get_ydata())
    assert shown == sorted(
        speedup for row in comparison.rows for speedup in (row.measured_speedup, row.simulated_speedup)
    )


def test_panels_show_the_measures_of_the_table_each_explained(comparison):
    figure = comparison_figure(comparison)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    everything = "\n".join(text.get_text() for text in texts(figure))
    for name, meaning in MEASURES.items():
        assert f"{name}: {meaning}" in everything
        assert name in titles or name == "plan"
    for row, prediction in zip(comparison.rows, comparison.predictions, strict=True):
        assert prediction.plan.label in everything and f"{row.error:+.0%}" in everything


@pytest.mark.parametrize("names", [["one"], ["mlp 64-512-512-512-512-512-10", "two", "three"]], ids=len)
def test_no_text_lies_on_another_and_none_is_cut(comparison, names):
    shown = with_models(comparison, *names, measured_step_seconds=0.123, simulated_step_seconds=0.1)
    figure = comparison_figure(busy(shown) if len(names) == 1 else shown)
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        if text.startswith("\n"):  # its upper line is empty
            box.y1 = (box.y0 + box.y1) / 2
    assert len(boxes) > 30 * len(names)
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, place) in combinations(boxes, 2):
        common = Bbox.intersection(box, place)
        assert common is None or min(common.size) < 2, (text, other)


def test_a_picture_of_a_busy_machine_says_so(comparison):
    figures = map(comparison_figure, (comparison, busy(comparison)))
    said = ["\n".join(text.get_text() for text in texts(figure)) for figure in figures]
    assert [WAS_BUSY in everything for everything in said] == [False, True]


def test_the_memory_of_the_fullest_worker_is_cut_by_what_it_holds(comparison):
    memory = comparison_figure(comparison).axes[3]
    ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in zip(*memory.containers, strict=True)]
    assert ends == pytest.approx([row.simulated_memory_bytes for row in comparison.rows])
    assert len(ends) == len(PLANS)


def test_every_axis_of_a_mesh_has_a_marker():
    assert {*AXES, "several axes"} == set(MARKERS)
