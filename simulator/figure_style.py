"""How the simulator's pictures look: sizes of text, colours, axes without a frame, units at their ticks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter

from minidl.units import duration, scaled

PLAIN, SMALL = 9, 8  # points
GREY = "0.45"
# Colour-blind people can tell them apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
MEASURED, SIMULATED = BLUE, ORANGE


def tidy(axes: Axes) -> None:
    """No frame above and to the right; small ticks; a grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.set_axisbelow(True)


def ticks_of_seconds(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))


def ticks_of_bytes(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda nbytes, _: scaled(nbytes, "B")))


def legend_above(figure: FigureBase, handles: Sequence[Artist], columns: int, title: str | None = None) -> None:
    """A legend above all panels, in so many columns. title: a line above it, of what the whole picture is."""
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=PLAIN,
        title=title, title_fontsize=PLAIN, alignment="left",
    )  # fmt: skip
