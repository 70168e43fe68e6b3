"""Pictures of traces: the timelines of a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minidl.files import replacing
from minidl.trace import COMMUNICATION_LANES, Trace
from minidl.units import time_unit

COMMUNICATION = "#d9534f"
COLOURS = {"F": "#4c8fbd", "B": "#8c6bb1", "update": "#5aa469", **dict.fromkeys(COMMUNICATION_LANES, COMMUNICATION)}
OTHER = "#c0c0c0"
LEGEND = {"forward": COLOURS["F"], "backward": COLOURS["B"], "update": COLOURS["update"], "loss, other": OTHER,
          "communication": COMMUNICATION}  # fmt: skip


def timeline_figure(traces: Sequence[tuple[str, Trace]], step: int | None = None) -> Figure:
    """One step of each trace, a panel each on the same scale of time: a row for each rank, communication below compute.

    step: which one; by default the middle one of those that a trace holds, the later one of two.
    """
    steps = []
    for title, trace in traces:
        numbers = sorted({e.step for e in trace.events})
        steps.append((title, trace.of_step(step if step is not None else numbers[len(numbers) // 2])))
    unit, unit_seconds = time_unit(max(trace.step_seconds for _, trace in steps))
    heights = [len(trace.ranks) for _, trace in steps]
    figure = Figure(figsize=(12, 1 + 0.55 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(steps), 1, squeeze=False, sharex=True, height_ratios=heights)
    for (title, trace), (panel,) in zip(steps, axes, strict=True):
        zero = trace.events[0].start
        rows = {rank: row for row, rank in enumerate(trace.ranks)}
        bars: dict[tuple[int, str, str], list[tuple[float, float]]] = {}  # one collection for all that look alike
        for event in trace.events:
            colour = COLOURS.get(event.name.rstrip("0123456789"), COLOURS.get(event.lane, OTHER))
            bar = (event.start - zero) / unit_seconds, (event.end - event.start) / unit_seconds
            bars.setdefault((rows[event.rank], event.lane, colour), []).append(bar)
        dense = len(trace.events) > 100 * len(rows)  # then edges, and rounding to pixels, would hide bars
        for (row, lane, colour), spans in bars.items():
            place = (row + 0.14, 0.22) if lane in COMMUNICATION_LANES else (row - 0.4, 0.5)
            panel.broken_barh(spans, place, facecolor=colour, edgecolor="white", linewidth=0 if dense else 0.3,
                              snap=not dense)  # fmt: skip
        panel.set_yticks(list(rows.values()), [f"rank {rank}" for rank in rows], fontsize=9)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_title(title, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1][0].set_xlabel(unit)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in LEGEND.values()]
    figure.legend(handles, LEGEND.keys(), loc="outside lower right", ncols=len(LEGEND), frameon=False, fontsize=9)
    return figure


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure to each path, in the format of its ending."""
    for path in paths:
        with replacing(path) as part:
            figure.savefig(part, dpi=130)
