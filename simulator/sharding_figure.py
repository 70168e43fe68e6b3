"""The picture of what replicas hold under each sharding: bars by kind, by formula, simulated and measured."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minidl.plots import MEMORY
from minidl.units import scaled
from simulator.figure_style import SMALL, legend_above, ticks_of_bytes, tidy
from simulator.hardware import Cluster
from simulator.sharding import Row, model_name

HEIGHT, GAP = 0.8, 0.5  # of a bar, and between those of two shardings


def sharding_figure(rows: Sequence[Row], cluster: Cluster) -> Figure:
    """For each sharding a bar of what the formula says, of what is simulated and of what was measured."""
    measured = any(row.measured is not None for row in rows)
    figure = Figure(figsize=(7.0, 0.9 + len(rows) * (0.3 * (2 + measured) + 0.2)), layout="constrained")
    axes, places, y = figure.subplots(), [], 0.0
    for row in rows:
        bars = {"formula": row.formula, "simulated": row.simulated, "measured": row.measured}
        for name, memory in bars.items():
            if memory is None:
                continue
            left = 0.0
            for kind, colour in MEMORY.items():
                nbytes = getattr(memory, kind)
                axes.barh(y, nbytes, HEIGHT, left, color=colour, alpha=0.45 if name == "formula" else 1.0)
                left += nbytes
            axes.text(left, y, f" {scaled(left, 'B')}", va="center", fontsize=SMALL)
            places.append((y, f"{row.sharding}: {name}" if name == "formula" else name))
            y += 1
        y += GAP
    axes.set_yticks(*zip(*places, strict=True))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    ticks_of_bytes(axes.xaxis)
    tidy(axes)
    axes.set_xlabel("held by the fullest worker when it holds most; no formula for activations", fontsize=SMALL)
    handles = [Patch(color=colour, label=kind) for kind, colour in MEMORY.items()]
    legend_above(
        figure,
        handles,
        len(MEMORY),
        f"{model_name(measured)}, Adam, {cluster.usual_precision}, {rows[0].workers:,} workers, {cluster.name}",
    )
    return figure
