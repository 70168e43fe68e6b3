"""Pictures: simulated against measured speedup, and timelines of a step. They draw what Comparison and Trace hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minidl.files import replacing
from minidl.trace import COMMUNICATION, Trace

MEASURED, SIMULATED = "#1f6f8b", "#e0872b"
COLOURS = {"F": "#4c8fbd", "B": "#8c6bb1", "update": "#5aa469", "loss": "#b0b0b0", COMMUNICATION: "#d9534f"}


def comparison_figure(comparison) -> Figure:
    """A row of panels for each model: speedup over one worker, step time with its error, time not computing."""
    names = list(dict.fromkeys(row.model for row in comparison.rows))
    heights = [sum(row.model == name for row in comparison.rows) for name in names]
    figure = Figure(figsize=(13, 1.2 + 0.52 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(names), 3, squeeze=False, height_ratios=heights, width_ratios=(4, 4, 3))
    for panels, name in zip(axes, names, strict=True):
        rows = [row for row in comparison.rows if row.model == name]
        labels = [row.plan + (" *" if row.oversubscribed else "") for row in rows]
        speedup, step, lost = panels
        _pairs(speedup, [r.measured_speedup for r in rows], [r.simulated_speedup for r in rows], "{:.2f}")
        speedup.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        speedup.set_yticks(range(len(rows)), labels)
        speedup.set_title(f"{name}: speedup", fontsize=10, loc="left")
        _pairs(step, [r.measured_step_seconds * 1e3 for r in rows], [r.simulated_step_seconds * 1e3 for r in rows],
               "{:.1f}", [f"{r.error:+.0%}" for r in rows])  # fmt: skip
        step.set_title("step, ms (and the simulator's error)", fontsize=10, loc="left")
        _pairs(lost, [_lost(r, "measured") for r in rows], [_lost(r, "simulated") for r in rows], "{:.0f}")
        lost.set_title("not computing, % of the step", fontsize=10, loc="left")
        for panel in panels:
            panel.set_ylim(len(rows) - 0.45, -0.55)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=9)
        for panel in (step, lost):
            panel.set_yticks([])
    handles = axes[0][0].containers
    figure.legend(handles, ["measured", "simulated"], loc="outside lower right", ncols=2, frameon=False)
    figure.supxlabel("* more workers than cores", x=0.01, ha="left", fontsize=9)
    machine = comparison.machine
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores", fontsize=10, x=0.01, ha="left")
    return figure


def _lost(row, kind: str) -> float:
    exposed = getattr(row, f"{kind}_exposed_communication_seconds") / getattr(row, f"{kind}_step_seconds")
    return 100 * (getattr(row, f"{kind}_bubble_fraction") + exposed)


def _pairs(axes: Axes, measured: Sequence[float], simulated: Sequence[float], form: str, notes=None) -> None:
    """Two bars for each row, measured above simulated, with their values; `notes` behind the simulated ones."""
    rows = range(len(measured))
    above = axes.barh([y - 0.19 for y in rows], measured, 0.36, color=MEASURED)
    below = axes.barh([y + 0.19 for y in rows], simulated, 0.36, color=SIMULATED)
    axes.bar_label(above, [form.format(v) for v in measured], padding=3, fontsize=8)
    notes = notes or [""] * len(simulated)
    axes.bar_label(below, [f"{form.format(v)}  {note}".rstrip() for v, note in zip(simulated, notes, strict=True)],
                   padding=3, fontsize=8)  # fmt: skip
    axes.set_xlim(0, 1.28 * max(*measured, *simulated, 1e-9))


def timeline_figure(traces: Sequence[tuple[str, Trace]], step: int | None = None) -> Figure:
    """One step of each trace, a panel each on the same scale of time: a row for each rank, communication below compute.

    step: which one; by default the middle one of those that a trace holds.
    """
    steps = []
    for title, trace in traces:
        numbers = sorted({e.step for e in trace.events})
        steps.append((title, trace.of_step(step if step is not None else numbers[len(numbers) // 2])))
    heights = [len(trace.ranks) for _, trace in steps]
    figure = Figure(figsize=(12, 1 + 0.55 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(steps), 1, squeeze=False, sharex=True, height_ratios=heights)
    for (title, trace), (panel,) in zip(steps, axes, strict=True):
        zero = trace.events[0].start
        rows = {rank: row for row, rank in enumerate(trace.ranks)}
        bars: dict[tuple[int, str, str], list[tuple[float, float]]] = {}  # one collection for all that look alike
        for event in trace.events:
            colour = COLOURS.get(event.name.rstrip("0123456789"), COLOURS.get(event.lane, "#c8c8c8"))
            bar = ((event.start - zero) * 1e3, (event.end - event.start) * 1e3)
            bars.setdefault((rows[event.rank], event.lane, colour), []).append(bar)
        dense = len(trace.events) > 100 * len(rows)  # then edges, and rounding to pixels, would hide bars
        for (row, lane, colour), spans in bars.items():
            place = (row + 0.14, 0.22) if lane == COMMUNICATION else (row - 0.4, 0.5)
            panel.broken_barh(spans, place, facecolor=colour, edgecolor="white", linewidth=0 if dense else 0.3,
                              snap=not dense)  # fmt: skip
        panel.set_yticks(list(rows.values()), [f"rank {rank}" for rank in rows], fontsize=9)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_title(title, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1][0].set_xlabel("ms")
    names = {"F": "forward", "B": "backward", "update": "update", COMMUNICATION: "communication"}
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS[key]) for key in names]
    figure.legend(handles, names.values(), loc="outside lower right", ncols=4, frameon=False, fontsize=9)
    return figure


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure to each path, in the format of its ending."""
    for path in paths:
        with replacing(path) as part:
            figure.savefig(part, dpi=130)
