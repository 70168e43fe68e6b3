"""The picture of a comparison: speedup against workers first, then step times, where the time goes, and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from minidl.parallel import Plan
from minidl.units import duration, scaled
from simulator.calibration import at_once, in_words
from simulator.compare import MEASURES, WAS_BUSY, Comparison, Row
from simulator.figure_style import (
    GREY,
    MEASURED,
    PLAIN,
    SIMULATED,
    SMALL,
    legend_above,
    ticks_of_bytes,
    ticks_of_seconds,
    tidy,
)
from simulator.prediction import Prediction

Group = Sequence[tuple[Row, Prediction]]  # of one model

TONES = {"measured": (MEASURED, "#7fb8d8", "#d3e7f2"), "simulated": (SIMULATED, "#eeae7a", "#fadfca")}  # ever paler
PARTS = {"computing": "#606060", "exposed comm.": "#a8a8a8", "idle": "#dedede"}
KINDS = {"parameters": "#7a3300", "gradients": SIMULATED, "optimizer": "#eeae7a", "activations": "#fadfca"}
MARKERS = {"data": "o", "pipeline": "s", "tensor": "^", "context": "v", "expert": "P", "several axes": "D"}
WIDTH, SPEEDUPS, MODEL, ROW, NOTE = 10.4, 3.6, 0.75, 0.4, 0.17  # inches
SPREAD = 0.32  # of plans with as many workers, to either side, where twice as many are 1 away
IDEAL = "the speedup, if as many workers as can run at once did all the work and nothing else"
LABEL = 30  # letters of a plan; the rest is cut off


def comparison_figure(comparison: Comparison) -> Figure:
    """Speedup against workers, a panel for each model; below, a row of panels for each: time, its parts, memory."""
    pairs = list(zip(comparison.rows, comparison.predictions, strict=True))
    names = dict.fromkeys(row.model for row in comparison.rows)
    groups = [[pair for pair in pairs if pair[0].model == name] for name in names]
    lines, machine = math.ceil(len(groups) / 2), comparison.machine
    explained = [WAS_BUSY] * comparison.busy
    explained += [f"{name}: {meaning}" for name, meaning in (MEASURES | {"ideal": IDEAL}).items()]
    heights = [MODEL + ROW * len(group) for group in groups]
    parts = [SPEEDUPS * lines, sum(heights), NOTE * (len(explained) + 0.5)]
    figure = Figure(figsize=(WIDTH, sum(parts)), layout="constrained")
    above, below, notes = figure.subfigures(3, 1, height_ratios=parts)

    panels = above.subplots(lines, min(2, len(groups)), squeeze=False).ravel()
    for axes, group in zip(panels, groups, strict=False):
        _speedups(axes, group, at_once(machine))
    for axes in panels[len(groups) :]:
        axes.remove()
    _legend(above, {_kind(prediction.plan) for _, prediction in pairs}, machine)
    grid = below.subplots(len(groups), 3, squeeze=False, height_ratios=heights, width_ratios=(4, 3, 3))
    for line, group in zip(grid, groups, strict=True):
        _plans(line, group)
    _notes(notes, explained)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # the places are found; to save it in two formats need not find them again
    return figure


def _speedups(axes: Axes, group: Group, cores: int) -> None:
    """Two markers for each plan, joined by a line; plans with as many workers stand beside one another."""
    counts = sorted({row.workers for row, _ in group})
    top = 1.0
    for workers in counts:
        rows = [(row, prediction.plan) for row, prediction in group if row.workers == workers]
        for i, (row, plan) in enumerate(rows):
            x = math.log2(workers) + SPREAD * (2 * (i + 0.5) / len(rows) - 1)
            speedups = row.measured_speedup, row.simulated_speedup
            axes.plot([x, x], speedups, color="0.6", linewidth=1, zorder=2)
            for kind, y in zip(TONES, speedups, strict=True):
                axes.add_line(_marker(MARKERS[_kind(plan)], kind, x, y))
            top = max(top, *speedups, min(workers, cores))
    ends = [(math.log2(count) - SPREAD - 0.06, math.log2(count) + SPREAD + 0.06) for count in counts]
    best = [min(count, cores) for count in counts]
    for (first, last), y in zip(ends, best, strict=True):
        axes.plot([first, last], [y, y], color=GREY, linewidth=2, zorder=1)
    for (_, left), (right, _), y, then in zip(ends, ends[1:], best, best[1:], strict=False):
        axes.plot([left, right], [y, then], color=GREY, linewidth=1, linestyle=":", zorder=1)
    edges = math.log2(counts[0]) - 0.5, math.log2(counts[-1]) + 0.5
    if counts[-1] > cores:
        least = math.log2(min(count for count in counts if count > cores))
        axes.axvspan(least - 0.5, edges[1], color="0.94", zorder=0)
        axes.text(edges[1] - 0.04, 1.06 * top, "more workers than cores", ha="right", va="top",
                  fontsize=SMALL, color="0.3")  # fmt: skip
    axes.set_xlim(*edges)
    axes.set_ylim(0, 1.08 * top)
    axes.set_xticks([math.log2(count) for count in counts], [str(count) for count in counts])
    axes.set_xlabel("workers", fontsize=SMALL)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_title(f"{group[0][0].model}: speedup", fontsize=PLAIN + 1, loc="left", weight="bold")
    tidy(axes)


def _marker(shape: str, kind: str, x: float = 0.0, y: float = 0.0) -> Line2D:
    """A marker: full for what is measured, hollow for what is simulated."""
    colour = TONES[kind][0]
    return Line2D(
        [x], [y], linestyle="", marker=shape, markersize=6.5, markeredgewidth=1.5, markeredgecolor=colour,
        markerfacecolor=colour if kind == "measured" else "none", zorder=3, label=kind,
    )  # fmt: skip


def _kind(plan: Plan) -> str:
    """The mesh axis over which the workers are spread, or that there are several."""
    return next(iter(plan.axes), "data") if len(plan.axes) < 2 else "several axes"


def _legend(figure: SubFigure, kinds: set[str], machine: dict) -> None:
    handles = [
        *(_marker("o", kind) for kind in TONES),
        Line2D([], [], color=GREY, linewidth=2, label="ideal"),
        *(Line2D([], [], linestyle="", marker=shape, color=GREY, label=kind)
          for kind, shape in MARKERS.items() if kind in kinds),
    ]  # fmt: skip
    legend_above(figure, handles, len(handles))
    figure.text(0.995, 0.975, in_words(machine), ha="right", va="top", fontsize=SMALL, color="0.3")


def _plans(panels: Sequence[Axes], group: Group) -> None:
    """A line for each plan: step time, where it goes, and memory."""
    step, parts, memory = panels
    rows = [row for row, _ in group]
    for kind, shift in (("measured", -0.19), ("simulated", 0.19)):
        ys = [i + shift for i in range(len(rows))]
        seconds = [getattr(row, f"{kind}_step_seconds") for row in rows]
        errors = [f"  {row.error:+.0%}" if kind == "simulated" else "" for row in rows]
        bars = step.barh(ys, seconds, 0.36, color=TONES[kind][0])
        labels = [duration(s) + error for s, error in zip(seconds, errors, strict=True)]
        step.bar_label(bars, labels, padding=3, fontsize=SMALL)
        _stacks(parts, ys, 0.36, [[100 * share for share in row.shares(kind)] for row in rows], TONES[kind])
    held = [asdict(prediction.memory[prediction.fullest_stage]) for _, prediction in group]
    bars = _stacks(memory, range(len(rows)), 0.5, [[of[kind] for kind in KINDS] for of in held], list(KINDS.values()))
    memory.bar_label(bars, [scaled(row.simulated_memory_bytes, "B") for row in rows], padding=3, fontsize=SMALL)

    step.set_xlim(0, 1.3 * max(max(row.measured_step_seconds, row.simulated_step_seconds) for row in rows))
    ticks_of_seconds(step.xaxis)
    plans = [prediction.plan.label for _, prediction in group]
    step.set_yticks(range(len(rows)), [plan if len(plan) <= LABEL else f"{plan[: LABEL - 1]}…" for plan in plans])
    parts.set_xlim(0, 100)
    memory.set_xlim(0, 1.25 * max(row.simulated_memory_bytes for row in rows))
    ticks_of_bytes(memory.xaxis)
    titles = "step time, and error", "exposed comm., idle: % of a step", "memory"
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(f"\n{title}", fontsize=PLAIN, loc="left")  # the line above is for the name of the model
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        tidy(axes)
    parts.set_yticks([])
    memory.set_yticks([])
    place = blended_transform_factory(step.figure.transSubfigure, step.transAxes)
    step.annotate(rows[0].model, (0.005, 1), (0, 19), xycoords=place, textcoords="offset points", weight="bold",
                  fontsize=PLAIN + 1, annotation_clip=False).set_in_layout(False)  # fmt: skip


def _stacks(axes: Axes, ys: Sequence[float], height: float, widths: Sequence[Sequence[float]], colours: Sequence[str]):
    """Bars of one part after the other; those of the last part."""
    left = [0.0] * len(ys)
    for part, colour in zip(zip(*widths, strict=True), colours, strict=True):
        bars = axes.barh(ys, part, height, left=left, color=colour)
        left = [x + width for x, width in zip(left, part, strict=True)]
    return bars


def _notes(figure: SubFigure, lines: Sequence[str]) -> None:
    """What colours mean, and beside it the lines."""
    for x, colours, title in ((0.8, PARTS, "% of a step"), (0.995, KINDS, "memory")):
        handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(x, 1), title=title, title_fontsize=SMALL,
                      alignment="left", frameon=False, fontsize=SMALL)  # fmt: skip
    figure.text(0.005, 0.97, "\n".join(lines), fontsize=SMALL, va="top", color="0.3", linespacing=1.4)
