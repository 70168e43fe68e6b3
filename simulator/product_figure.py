"""The picture of products that are split in several ways: time and bytes against workers, a panel for each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from simulator.figure_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PLAIN,
    PURPLE,
    SMALL,
    legend_above,
    ticks_of_bytes,
    ticks_of_seconds,
    tidy,
)
from simulator.hardware import Cluster
from simulator.products import SPLITS, WHOLE, Row

STYLES = dict(zip(SPLITS, [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")], strict=True))
PANEL = 3.3, 2.7  # inches


def product_figure(rows: Sequence[Row], cluster: Cluster) -> Figure:
    """Above, seconds of forward and backward against workers; below, the bytes that a rank sends; a column for a size.

    Lines are simulated; full markers are measured.
    """
    sizes = list(dict.fromkeys(row.size for row in rows))
    figure = Figure(figsize=(max(len(sizes), 2) * PANEL[0], 2 * PANEL[1] + 0.5), layout="constrained")
    panels = figure.subplots(2, len(sizes), squeeze=False, sharex=True, sharey="row")
    cores = cluster.processors.cores if cluster.processors else None
    for size, (above, below) in zip(sizes, panels.T, strict=True):
        group = [row for row in rows if row.size == size]
        _lines(above, group, lambda row: row.simulated_seconds, lambda row: row.measured_seconds)
        _lines(below, [row for row in group if row.split != WHOLE], lambda row: row.sent_bytes)
        above.set_title(f"{size} × {size}", fontsize=PLAIN + 1, loc="left", weight="bold")
        below.set_xlabel("workers", fontsize=SMALL)
        for axes in (above, below):
            _axes_of_workers(axes, sorted({row.workers for row in rows}), cores)
    panels[0, 0].set_ylabel("forward and backward", fontsize=SMALL)
    panels[1, 0].set_ylabel("sent by a rank", fontsize=SMALL)
    ticks_of_seconds(panels[0, 0].yaxis)
    ticks_of_bytes(panels[1, 0].yaxis)
    _legend(figure, any(row.measured_seconds is not None for row in rows), cluster)
    return figure


def _lines(
    axes: Axes,
    rows: Sequence[Row],
    simulated: Callable[[Row], float],
    measured: Callable[[Row], float | None] = lambda row: None,
) -> None:
    """A line for each split; all begin where one worker does the whole."""
    for number, (split, (colour, marker)) in enumerate(STYLES.items()):
        own = [row for row in rows if row.split in (split, WHOLE)]
        axes.plot([row.workers for row in own], [simulated(row) for row in own], color=colour, marker=marker,
                  markerfacecolor="white", markersize=6 - number, linewidth=2.4 - 0.4 * number)  # fmt: skip
        found = [(row.workers, seconds) for row in own if (seconds := measured(row)) is not None]
        axes.plot(*zip(*found, strict=True) if found else ((), ()), linestyle="", color=colour, marker=marker,
                  markersize=6 - number, zorder=3)  # fmt: skip


def _axes_of_workers(axes: Axes, counts: Sequence[int], cores: int | None) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)
    if cores and counts[-1] > cores:
        axes.axvspan(cores * 2**0.5, counts[-1] * 1.3, color="0.94", zorder=0)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    tidy(axes)


def _legend(figure: Figure, measured: bool, cluster: Cluster) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor="white", label=split)
        for split, (colour, marker) in STYLES.items()
    ]
    if measured:
        handles.append(Line2D([], [], color=GREY, marker="o", linestyle="", label="full: measured"))
    handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="white", label=f"simulated, {cluster.name}"))
    if cluster.processors:
        handles.append(Line2D([], [], color="0.9", linewidth=8, label="more workers than cores"))
    legend_above(figure, handles, 4)
