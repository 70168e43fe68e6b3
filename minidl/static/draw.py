"""A picture of a graph: kernel calls from top to bottom, each below those whose results it takes.

Where there are too many calls to read, those that one call of a module makes become one box.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minidl.files import replacing
from minidl.static.graph import Graph

WIDTH, HEIGHT = 2.1, 0.75  # inches from one box to the next, across and down
HALF_HEIGHT, HALF_LETTER, PADDING, MARGIN = 0.165, 0.0245, 0.03, 0.2  # inches: of a box, of its letters, around both
BENDS = (0.0, *(side * step / 20 for step in range(1, 61) for side in (1, -1)))  # of arrows, the least first
MOST = 40  # boxes, if calls of modules can be found that give fewer
COLOURS = {"input": "#dbe9f6", "call": "#f4f4f4", "block": "#fcf0d9", "output": "#dff0d8"}


@dataclass(frozen=True)
class Block:
    """What one box stands for: neighbouring nodes of a graph, of which `sources` gives what they take from outside."""

    label: str
    nodes: range
    sources: tuple[int, ...]


def draw(graph: Graph, path: str | PathLike) -> None:
    """See Graph.draw."""
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
    texts = {box: _input(graph, -1 - box) if box < 0 else _described(graph, boxes[box]) for box in depth}
    places = _places(depth, texts)
    curves = {edge: curve(*edge, places) for edge in edges}
    rows = 1 + max(depth.values())
    sides = [abs(p.x) + p.half_width for p in places.values()] + [np.abs(xs).max() for _, xs in curves.values()]
    side, height = max(sides) + MARGIN, rows * HEIGHT + 2 * MARGIN
    figure = Figure(figsize=(2 * side, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-side, side), ylim=(height - MARGIN - HEIGHT / 2, -MARGIN - HEIGHT / 2))
    axes.axis("off")
    for (start, end), (bend, _) in curves.items():
        arrow = {"arrowstyle": "-|>", "color": "#999999", "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        arrow["connectionstyle"] = f"arc3,rad={bend}"
        axes.annotate("", xy=places[end].top, xytext=places[start].bottom, arrowprops=arrow)
    for box, (text, kind) in texts.items():
        style = {"boxstyle": "round,pad=0.35", "facecolor": COLOURS[kind], "edgecolor": "#666666", "linewidth": 0.8}
        axes.text(places[box].x, places[box].y, text, ha="center", va="center", fontsize=7, bbox=style)
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format=Path(path).suffix[1:] or "png")


@dataclass(frozen=True)
class Place:
    """Where a box lies, in inches: its middle, from the middle of the picture and downward from the first row."""

    x: float
    y: float
    half_width: float

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y - HALF_HEIGHT

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y + HALF_HEIGHT


def _places(depth: dict[int, int], texts: dict[int, tuple[str, str]]) -> dict[int, Place]:
    """The boxes of a row lie side by side around the middle."""
    columns, places = Counter(depth.values()), {}
    begun: Counter = Counter()
    for box, row in depth.items():
        column = begun[row] - (columns[row] - 1) / 2
        begun[row] += 1
        longest = max(map(len, texts[box][0].split("\n")))
        places[box] = Place(column * WIDTH, row * HEIGHT, longest * HALF_LETTER + PADDING)
    return places


def curve(start: int, end: int, places: dict[int, Place]) -> tuple[float, np.ndarray]:
    """How far an arrow must bend (matplotlib's `arc3`) so that it passes behind no box, and where it then runs, across.

    Straight, if no bend will do.
    """
    (x0, y0), (x1, y1) = places[start].bottom, places[end].top
    between = [p for p in places.values() if places[start].y < p.y < places[end].y]
    x, y, wide = np.array([(p.x, p.y, p.half_width) for p in between]).reshape(-1, 3, 1).transpose(1, 0, 2)
    t = np.linspace(0, 1, 60)
    for bend in BENDS:
        middle = (x0 + x1) / 2 - bend * (y1 - y0), (y0 + y1) / 2 + bend * (x1 - x0)
        xs, ys = (
            (1 - t) ** 2 * first + 2 * t * (1 - t) * m + t**2 * last
            for first, m, last in zip((x0, y0), middle, (x1, y1), strict=True)
        )
        behind = (np.abs(xs - x) < wide + PADDING) & (np.abs(ys - y) < HALF_HEIGHT + PADDING)
        if not behind.any() and (np.diff(ys) > 0).all():
            return bend, xs
    return 0.0, np.array([x0, x1])


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


def _input(graph: Graph, place: int) -> tuple[str, str]:
    return f"input {place}\n{graph.values[place]}", "input"


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
