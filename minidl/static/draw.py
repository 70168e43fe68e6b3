"""A picture of a graph: kernel calls from top to bottom, each below those whose results it takes."""

from collections import Counter
from os import PathLike
from pathlib import Path

from minidl.files import replacing
from minidl.static.graph import Graph

WIDTH, HEIGHT = 2.1, 0.75  # inches from one call to the next, across and down
HALF_BOX = 0.22  # of the distance down
COLOURS = {"input": "#dbe9f6", "call": "#f4f4f4", "output": "#dff0d8"}


def draw(graph: Graph, path: str | PathLike) -> None:
    """Write a picture of the graph, in the format that the ending of `path` names (.png, .svg, .pdf).

    Constants are left out; results that are the function's are green.
    """
    from matplotlib.figure import Figure  # takes half a second: only who draws pays for it

    made_by = {place: i for i, node in enumerate(graph.nodes) for place in node.results}
    sources = [[made_by.get(place, -1 - place) for place in node.arguments] for node in graph.nodes]
    depth = {-1 - place: 0 for place in graph.inputs}
    edges = []
    for i, found in enumerate(sources):
        known = [j for j in dict.fromkeys(found) if j in depth and j != i]
        depth[i] = 1 + max((depth[j] for j in known), default=0)
        edges += [(j, i) for j in known]
    columns: Counter = Counter()
    place_of = {}
    for i, row in depth.items():
        place_of[i] = (columns[row], row)
        columns[row] += 1
    widest, rows = max(columns.values()), 1 + max(depth.values())
    figure = Figure(figsize=(WIDTH * widest + 0.4, HEIGHT * rows + 0.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5 * widest - 0.1, 0.5 * widest + 0.1), ylim=(rows - 0.4, -0.6))
    axes.axis("off")

    def position(i: int) -> tuple[float, float]:
        column, row = place_of[i]
        return column - (columns[row] - 1) / 2, row

    for start, end in edges:
        (x0, y0), (x1, y1) = position(start), position(end)
        arrow = {"arrowstyle": "-|>", "color": "#999999", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(x1, y1 - HALF_BOX), xytext=(x0, y0 + HALF_BOX), arrowprops=arrow)
    for i in depth:
        if i < 0:
            text, colour = f"input {-1 - i}\n{graph.values[-1 - i]}", COLOURS["input"]
        else:
            node = graph.nodes[i]
            text = "\n".join([node.name, *(str(graph.values[place]) for place in node.results[:1])])
            colour = COLOURS["output" if set(node.results) & set(graph.outputs) else "call"]
        box = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "#666666", "linewidth": 0.8}
        axes.text(*position(i), text, ha="center", va="center", fontsize=7, bbox=box)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format=Path(path).suffix[1:] or "png")


Graph.draw = draw
