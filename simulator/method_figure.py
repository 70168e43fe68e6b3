"""The picture of the methods: the measured step of each beside the simulated one."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from minidl.units import duration
from simulator.figure_style import MEASURED, PLAIN, SIMULATED, SMALL, legend_above, ticks_of_seconds, tidy
from simulator.methods import Row

COLOURS = {"measured": MEASURED, "simulated": SIMULATED}
WIDTH, MODEL, ROW, LEGEND = 8.0, 0.7, 0.34, 0.4  # inches


def method_figure(rows: Sequence[Row], machine: str) -> Figure:
    """A panel for each model, with two bars for each of its methods and, at their end, the error."""
    models = dict.fromkeys(row.model for row in rows)
    groups = [[row for row in rows if row.model == model] for model in models]
    heights = [MODEL + ROW * len(group) for group in groups]
    figure = Figure(figsize=(WIDTH, sum(heights) + LEGEND), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights).ravel()
    for axes, group in zip(panels, groups, strict=True):
        _bars(axes, group)
    kinds = COLOURS if any(row.measured_step_seconds is not None for row in rows) else ("simulated",)
    handles = [Patch(color=COLOURS[kind], label=f"{kind} step") for kind in kinds]
    title = f"{machine}, {rows[0].workers} workers"
    legend_above(figure, handles, 2, title)
    return figure


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    places, simulated = range(len(rows)), [row.simulated_step_seconds for row in rows]
    if rows[0].measured_step_seconds is None:
        _labelled(axes, places, simulated, 0.5, "simulated", [""] * len(rows))
    else:
        measured, errors = [row.measured_step_seconds for row in rows], [f"  {row.error:+.0%}" for row in rows]
        _labelled(axes, [place - 0.19 for place in places], measured, 0.36, "measured", [""] * len(rows))
        _labelled(axes, [place + 0.19 for place in places], simulated, 0.36, "simulated", errors)
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, 1.25 * max(max(row.measured_step_seconds or 0.0, row.simulated_step_seconds) for row in rows))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    ticks_of_seconds(axes.xaxis)
    axes.set_title(rows[0].model, fontsize=PLAIN, loc="left", weight="bold")
    tidy(axes)


def _labelled(
    axes: Axes, places: Sequence[float], seconds: Sequence[float], height: float, kind: str, more: Sequence[str]
) -> None:
    """Bars of one kind, with the time at their ends, and what is to stand behind it."""
    bars = axes.barh(places, seconds, height, color=COLOURS[kind])
    labels = [duration(s) + text for s, text in zip(seconds, more, strict=True)]
    axes.bar_label(bars, labels, padding=3, fontsize=SMALL)
