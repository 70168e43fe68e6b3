"""The picture of the methods: the measured step of each beside the simulated one."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from minidl.units import duration
from simulator.methods import Row

COLOURS = {"measured": "#0072b2", "simulated": "#d55e00"}  # Okabe and Ito 2008: colour-blind people tell them apart
WIDTH, MODEL, ROW, LEGEND = 8.0, 0.7, 0.34, 0.4  # inches
PLAIN, SMALL = 9, 8  # points


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
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=PLAIN, title=title,
                  title_fontsize=PLAIN, alignment="left")  # fmt: skip
    return figure


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    if rows[0].measured_step_seconds is None:
        bars = axes.barh(places, [row.simulated_step_seconds for row in rows], 0.5, color=COLOURS["simulated"])
        labels = [duration(row.simulated_step_seconds) for row in rows]
    else:
        measured = axes.barh(
            [place - 0.19 for place in places], [row.measured_step_seconds for row in rows], 0.36,
            color=COLOURS["measured"],
        )  # fmt: skip
        axes.bar_label(measured, [duration(row.measured_step_seconds) for row in rows], padding=3, fontsize=SMALL)
        bars = axes.barh(
            [place + 0.19 for place in places], [row.simulated_step_seconds for row in rows], 0.36,
            color=COLOURS["simulated"],
        )  # fmt: skip
        labels = [f"{duration(row.simulated_step_seconds)}  {row.error:+.0%}" for row in rows]
    axes.bar_label(bars, labels, padding=3, fontsize=SMALL)
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, 1.25 * max(max(row.measured_step_seconds or 0.0, row.simulated_step_seconds) for row in rows))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))
    axes.set_title(rows[0].model, fontsize=PLAIN, loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.set_axisbelow(True)
