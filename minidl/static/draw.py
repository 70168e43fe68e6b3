"""A picture of a graph: kernel calls from top to bottom, each below those whose results it takes.

Where there are too many calls to read, those that one call of a module makes become one box.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from minidl.files import replacing
from minidl.static.graph import Graph

WIDTH, HEIGHT = 2.1, 0.75  # inches from one box to the next, across and down
HALF_BOX = 0.22  # of the distance down
MOST = 40  # boxes, if calls of modules can be found that give fewer
COLOURS = {"input": "#dbe9f6", "call": "#f4f4f4", "block": "#fcf0d9", "output": "#dff0d8"}


@dataclass(frozen=True)
class Block:
    """What one box stands for: neighbouring nodes of a graph, of which `sources` gives what they take from outside."""

    label: str
    nodes: range
    sources: tuple[int, ...]


def draw(graph: Graph, path: str | PathLike) -> None:
    """Write a picture of the graph, in the format that the ending of `path` names (.png, .svg, .pdf).

    A box is a kernel call, or in deep models all calls that a module makes, with the shapes of what it takes and gives.
    Constants are left out; results that are the function's are green.
    """
    from matplotlib.figure import Figure  # takes half a second: only who draws pays for it

    boxes = blocks(graph)
    box_of = {node: box for box, block in enumerate(boxes) for node in block.nodes}
    box_of |= {-1 - place: -1 - place for place in graph.inputs}
    edges = {(box_of[source], box): None for box, block in enumerate(boxes) for source in block.sources}
    depth = {-1 - place: 0 for place in graph.inputs}
    for box in range(len(boxes)):
        depth[box] = 1 + max((depth[start] for start, end in edges if end == box), default=0)
    for box in range(len(boxes)):
        if all(end != box for _, end in edges):  # it takes constants alone, and stands where it is first used
            depth[box] = min((depth[end] for start, end in edges if start == box), default=2) - 1
    columns: Counter = Counter()
    place_of = {}
    for box, row in depth.items():
        place_of[box] = (columns[row], row)
        columns[row] += 1
    widest, rows = max(columns.values()), 1 + max(depth.values())
    figure = Figure(figsize=(WIDTH * widest + 0.4, HEIGHT * rows + 0.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5 * widest - 0.1, 0.5 * widest + 0.1), ylim=(rows - 0.4, -0.6))
    axes.axis("off")

    def position(box: int) -> tuple[float, float]:
        column, row = place_of[box]
        return column - (columns[row] - 1) / 2, row

    for start, end in edges:
        (x0, y0), (x1, y1) = position(start), position(end)
        bend = f"arc3,rad={1.6 / (y1 - y0):.2f}" if y1 - y0 > 1 and x0 == x1 else "arc3"  # round the boxes between
        arrow = {"arrowstyle": "-|>", "color": "#999999", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        arrow["connectionstyle"] = bend
        axes.annotate("", xy=(x1, y1 - HALF_BOX), xytext=(x0, y0 + HALF_BOX), arrowprops=arrow)
    for box in depth:
        if box < 0:
            text, kind = f"input {-1 - box}\n{graph.values[-1 - box]}", "input"
        else:
            text, kind = _described(graph, boxes[box])
        style = {"boxstyle": "round,pad=0.35", "facecolor": COLOURS[kind], "edgecolor": "#666666", "linewidth": 0.8}
        axes.text(*position(box), text, ha="center", va="center", fontsize=7, bbox=style)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format=Path(path).suffix[1:] or "png")


def blocks(graph: Graph, most: int = MOST) -> list[Block]:
    """The boxes of a picture: single calls, or where these are more than `most` what modules call, as deep as can."""
    deepest = max((len(node.scope) for node in graph.nodes), default=0)
    found = [_blocks_at(graph, depth) for depth in (None, *range(deepest, -1, -1))]
    return next((b for b in found if len(b) <= most), found[-1])


def _blocks_at(graph: Graph, depth: int | None) -> list[Block]:
    """Runs of nodes with the first `depth` of their scope in common; with None each node by itself."""

    def of(i: int):
        return i if depth is None else graph.nodes[i].scope[:depth]

    found = []
    for scope, run in itertools.groupby(range(len(graph.nodes)), of):
        nodes = list(run)
        inside = range(nodes[0], nodes[-1] + 1)
        outside = dict.fromkeys(j for i in inside for j in graph.sources[i] if j not in inside)
        alone = len(inside) == 1
        label = graph.nodes[inside[0]].name if alone else scope[-1][1] if scope else graph.nodes[inside[0]].name + " …"
        found.append(Block(label, inside, tuple(outside)))
    return found


def _described(graph: Graph, block: Block) -> tuple[str, str]:
    """What stands in a box, and its kind."""
    nodes = [graph.nodes[i] for i in block.nodes]
    made = {place: None for node in nodes for place in node.results}
    later = {place for node in graph.nodes[block.nodes.stop :] for place in node.arguments} | set(graph.outputs)
    gives = [place for place in made if place in later and graph.values[place].kind == "result"] or list(made)
    text = str(graph.values[gives[-1]]) if gives else ""
    kind = "output" if made.keys() & set(graph.outputs) else "call" if len(nodes) == 1 else "block"
    if len(nodes) == 1:
        return f"{block.label}\n{text}", kind
    taken = (p for node in nodes for p in node.arguments if p not in made and graph.values[p].is_array)
    takes = next((str(graph.values[place]) for place in taken if graph.values[place].kind != "constant"), "")
    return f"{block.label}, {len(nodes)} calls\n{takes} → {text}", kind


Graph.draw = draw
