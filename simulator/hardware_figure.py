"""The picture of a cluster: its units, one inside the other, and the rooflines of a device."""

from __future__ import annotations

from math import inf

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from minidl.units import counted, scaled
from simulator.figure_style import BLUE, GREEN, GREY, ORANGE, PLAIN, PURPLE, SMALL, tidy
from simulator.hardware import Cluster
from simulator.network import Levels
from simulator.network.topologies import Switch
from simulator.rooflines import rooflines

COLOURS = BLUE, ORANGE, GREEN, PURPLE
SQUARES = 256  # drawn of the devices in a node, rack or slice, at most
DRAWN = 3  # units drawn of those that a larger one has
CLOSE = 1.3  # two lines of which the lower one has its name below it
INTENSITY = 1.0, 1e5  # FLOPs for each byte, the width of the rooflines


def hardware_figure(cluster: Cluster) -> Figure:
    """Left the levels of the network, right the rooflines (Williams et al. 2009) of products in each precision."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _levels(left, cluster)
    _rooflines(right, cluster)
    figure.suptitle(f"{cluster.name}, {counted(cluster.devices, 'device')}", fontsize=PLAIN + 1, x=0.01, ha="left")
    return figure


def _levels(axes: Axes, cluster: Cluster) -> None:
    """Boxes in boxes: of each unit the first ones that it has, and how many there are."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    if not isinstance(cluster.network, Levels):
        axes.text(0, 0.95, str(cluster.network), fontsize=SMALL, va="top", wrap=True)
        return
    left, bottom, width, height = 0.0, 0.0, 1.0, 0.98
    lower = min(0.26, 0.7 / len(cluster.network.levels))  # a box than the one around it
    levels, rates = cluster.network.levels, cluster.network.bandwidths
    for number in reversed(range(len(levels))):
        level, below, colour = levels[number], levels[number - 1].size if number else 1, COLOURS[number % len(COLOURS)]
        topology = "through switches" if number and isinstance(level.topology, Switch) else str(level.topology)
        text = f"{level.name}\n{topology}: {scaled(rates[number], 'B/s')} a device"
        _box(axes, left, bottom, width, height, colour)
        axes.text(left + 0.02, bottom + height - 0.02, text, fontsize=SMALL, va="top", color=colour)
        if number == 0:
            many = f"{level.places:,} devices" + f", {SQUARES} drawn" * (level.places > SQUARES)
            _how_many(axes, left + width, bottom + height, many, colour)
            _devices(axes, left + 0.02, bottom + 0.03, width - 0.04, height - 0.2, level.places)
            return
        count = DRAWN if level.size == inf else level.size / below
        behind = int(min(count, DRAWN)) - 1
        for place in range(behind, 0, -1):
            _box(axes, left + 0.02 + 0.02 * place, bottom + 0.02 + 0.02 * place, width - 0.1, height - lower, "0.7")
        many = "" if level.size == inf else f"{count:,.0f} units"
        _how_many(axes, left + width, bottom + height, many, colour)
        left, bottom, width, height = left + 0.02, bottom + 0.02, width - 0.1, height - lower


def _box(axes: Axes, left: float, bottom: float, width: float, height: float, colour: str) -> None:
    axes.add_patch(Rectangle((left, bottom), width, height, facecolor="white", edgecolor=colour, linewidth=1.4))


def _how_many(axes: Axes, right: float, top: float, text: str, colour: str) -> None:
    """In the upper right corner of a box."""
    axes.text(right - 0.02, top - 0.02, text, fontsize=SMALL, ha="right", va="top", color=colour)


def _devices(axes: Axes, left: float, bottom: float, width: float, height: float, count: int) -> None:
    """So many squares, at most SQUARES, in rows."""
    shown = min(count, SQUARES)
    columns = int(np.ceil(np.sqrt(shown * width / max(height, 0.05))))
    side = min(width / columns, height / int(np.ceil(shown / columns)))
    for number in range(shown):
        row, column = divmod(number, columns)
        place = left + column * side, bottom + height - (row + 1) * side
        axes.add_patch(Rectangle(place, 0.8 * side, 0.8 * side, facecolor="0.85", edgecolor=GREY, linewidth=0.6))


def _rooflines(axes: Axes, cluster: Cluster) -> None:
    """FLOP/s that products reach by the arithmetic for each byte; a line for each peak."""
    found, peaks = rooflines(cluster), {}
    for precision, flops in found.flops.items():
        peaks.setdefault(flops, []).append(precision)
    intensity = np.geomspace(*INTENSITY, 200)
    above = inf
    for number, (peak, names) in enumerate(sorted(peaks.items(), reverse=True)):
        colour, place = COLOURS[number % len(COLOURS)], 2 if above / peak > CLOSE else -9  # points from the line
        axes.plot(intensity, np.minimum(found.bandwidth * intensity, peak), color=colour, linewidth=1.6)
        axes.annotate(f"{', '.join(names)}: {scaled(peak, 'FLOP/s')}", (INTENSITY[1], peak), xytext=(0, place),
                      textcoords="offset points", fontsize=SMALL, ha="right", color=colour)  # fmt: skip
        above = peak
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: scaled(rate, "FLOP/s")))
    axes.set_xlabel("FLOPs for each byte of memory traffic", fontsize=SMALL)
    axes.set_title(f"products; memory {scaled(found.bandwidth, 'B/s')}", fontsize=SMALL, loc="left")
    axes.grid(color="0.9", linewidth=0.6)
    tidy(axes)
