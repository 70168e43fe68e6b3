"""Pictures of traces, programs and memory: one step, a row or a panel for each rank.

matplotlib takes half a second to load: `Trace.draw` and its like import this file when they are called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from minidl.events import COMMUNICATION_LANES, COPY, Event
from minidl.files import check_picture, replacing
from minidl.parallel.checker import Slot, check
from minidl.parallel.memory import memory_over_step
from minidl.parallel.program import Program
from minidl.trace import Trace
from minidl.units import duration, scaled, time_unit
from minidl.validation import check_count

COLOURS = {
    "forward": "#4c8fbd", "backward": "#e3a53c", "backward of weights": "#8c6bb1", "recomputation": "#35978f",
    "update": "#5aa469", "loss, other": "#a0a0a0", "communication": "#d9534f", "copy": "#8c564b",
}  # fmt: skip
KINDS = {"F": "forward", "infer": "forward", "B": "backward", "W": "backward of weights", "R": "recomputation",
         "update": "update", "measure": "update", "add": "update"}  # label -> what it is drawn as  # fmt: skip
MEMORY = {"parameters": "#4c8fbd", "gradients": "#e3a53c", "optimizer": "#5aa469", "activations": "#8c6bb1"}
COMPUTED, MOVED, COPIED = (-0.4, 0.5), (0.14, 0.22), (0.38, 0.14)  # top and height of bars, around a rank's row
LATER_CHUNK = "lighter: a later chunk of the rank"
IDLE = "#ececec"
MOST_RANKS = 32  # of more, a program is drawn for one rank of each stage
MOST_PANELS = 4  # of memory
WIDTH = 12  # inches
POINT = 1 / 72  # inches


def timeline_figure(traces: Sequence[tuple[str, Trace]]) -> Figure:
    """The last step of each trace, a panel each on one axis of time: a row for a rank, communication below compute.

    On a GPU copies between host and device are below both. Bars of copies are never too narrow to be seen.

    traces: with titles. ValueError if one is empty.
    """
    if not all(trace.events for _, trace in traces):
        raise ValueError("the trace is empty: there is nothing to draw")
    steps = [(title, trace.steps()[-1]) for title, trace in traces]
    longest = max(max(e.end for e in trace.events) - trace.events[0].start for _, trace in steps)
    unit, unit_seconds = time_unit(longest or 1.0)
    heights = [len(trace.ranks) + 0.6 for _, trace in steps]
    row = 0.8 if any(e.lane == COPY for _, trace in steps for e in trace.events) else 0.55  # inches
    figure = Figure(figsize=(WIDTH, 0.8 + row * sum(heights)), layout="constrained")
    axes = figure.subplots(len(steps), 1, squeeze=False, sharex=True, height_ratios=heights)
    for (title, trace), (panel,) in zip(steps, axes, strict=True):
        _rows(panel, title, [f"rank {rank}" for rank in trace.ranks])
        _events(panel, trace, unit_seconds, longest)
    axes[0][0].set_xlim(0, 1.005 * (longest or 1.0) / unit_seconds)
    axes[-1][0].set_xlabel(unit)
    events = [event for _, trace in steps for event in trace.events]
    _legend(figure, {_kind(e.lane, e.name) for e in events}, any(_places(trace) for _, trace in steps))
    return figure


def _events(panel: Axes, trace: Trace, unit_seconds: float, longest: float) -> None:
    rows = {rank: row for row, rank in enumerate(trace.ranks)}
    zero, places = trace.events[0].start, _places(trace)
    written: dict[tuple, float] = {}  # until when there is text below a rank
    bars: dict[tuple[int, tuple, str], list[tuple[float, float]]] = {}  # one collection for all that look alike
    for event in trace.events:
        row, place = rows[event.rank], _place(event.lane)
        colour = COLOURS[_kind(event.lane, event.name)]
        if place is COMPUTED:
            colour = _shade(colour, places.get(_chunk(event), 0))
        left, width = (event.start - zero) / unit_seconds, (event.end - event.start) / unit_seconds
        bars.setdefault((row, place, colour), []).append((left, width))
        inches = (event.end - event.start) / (longest or 1.0) * (WIDTH - 1)
        top, height = place
        free = written.get((row, place), -math.inf)  # collectives and messages share a row; copies may overlap
        if place is COMPUTED or event.start >= free:
            size = 7 if place is COMPUTED else 5
            _write(panel, left + width / 2, row + top + height / 2, inches, size, colour, event.name, _number(event))
        written[row, place] = max(event.end, free)
    dense = len(trace.events) > 100 * len(rows)  # then edges, and rounding to pixels, would hide bars
    for (row, place, colour), spans in bars.items():
        top, height = place
        edge, line = (colour, 0.6) if place is COPIED else ("white", 0 if dense else 0.3)
        panel.broken_barh(spans, (row + top, height), facecolor=colour, edgecolor=edge, linewidth=line,
                          snap=not dense)  # fmt: skip


def program_figure(program: Program) -> Figure:
    """One step as a chart of slots: a row for a rank; in a box the micro-batch that goes forward or backward.

    A forward is one slot, a backward two, half of one a slot, and communication none: Narayanan et al. 2021, figures 3
    and 4. Of more than 32 ranks, one of each stage is drawn, and those whose list was replaced. ProgramError if the
    program is wrong.
    """
    slots = [slot for slot in check(program).slots if slot.end > slot.start]
    every = program.world_size <= MOST_RANKS
    some = {*program.plan.mesh(0).ranks("pipeline"), *program.edited}
    ranks = list(range(program.world_size)) if every else sorted(some)
    slots = [slot for slot in slots if slot.rank in ranks]
    end = max((slot.end for slot in slots), default=1.0)
    busy = sum(slot.end - slot.start for slot in slots)
    width = min(max(5.0, 0.3 * end), 22.0)
    figure = Figure(figsize=(1 + width, 1.2 + 0.3 * len(ranks)), layout="constrained")
    panel = figure.subplots()
    which = "" if every else "; one rank of each stage"
    title = f"{program.plan}: {end:g} slots, {1 - busy / (end * len(ranks)):.1%} idle{which}"
    _rows(panel, title, [f"rank {rank}" for rank in ranks])
    panel.set_facecolor(IDLE)
    stages = program.layout.stages
    places = {chunk: place for chunks in stages for place, chunk in enumerate(chunks)}
    for slot in slots:
        _box(panel, slot, ranks.index(slot.rank), places[slot.instruction.chunk], width / end)
    panel.set_xlim(0, end)
    panel.set_xlabel("slots: the forward of a chunk takes one, its backward two, half of a backward one")
    kinds = {_kind(slot.instruction.lane, slot.instruction.label) for slot in slots}
    _legend(figure, kinds, any(places.values()), idle=True)
    return figure


def _box(panel: Axes, slot: Slot, row: int, place: int, inches: float) -> None:
    i, length = slot.instruction, slot.end - slot.start
    colour = _shade(COLOURS[_kind(i.lane, i.label)], place)
    panel.add_patch(
        Rectangle((slot.start, row - 0.46), length, 0.92, facecolor=colour, edgecolor="white", linewidth=0.8)
    )
    _write(panel, (slot.start + slot.end) / 2, row, length * inches, 8, colour, str(i.micro_batch))


def memory_figure(program: Program, ranks: Sequence[int]) -> Figure:
    """What each of the ranks holds over the instructions of a step, by kind, with its peak: a panel for each.

    ValueError if nobody has told the program what its buffers hold.
    """
    if program.costs is None:
        raise ValueError("this program does not know what its buffers hold: draw that of `prepare`, or of a Run")
    walks = [list(memory_over_step(program, rank)) for rank in ranks]
    highest = max(memory.total for walk in walks for _, memory in walk)
    text, unit = scaled(highest, "B").split()
    nbytes = highest / float(text.replace(",", ""))
    figure = Figure(figsize=(WIDTH, 0.9 + 1.9 * len(ranks)), layout="constrained")
    axes = figure.subplots(len(ranks), 1, squeeze=False, sharey=True)
    for rank, walk, (panel,) in zip(ranks, walks, axes, strict=True):
        edges = range(len(walk) + 1)
        held = {kind: [getattr(memory, kind) / nbytes for _, memory in walk] for kind in MEMORY}
        panel.stackplot(edges, [[*h, h[-1]] for h in held.values()], colors=MEMORY.values(), step="post")
        totals = [memory.total for _, memory in walk]
        peak = totals.index(max(totals))
        top = totals[peak] / nbytes
        panel.plot([0, len(walk)], [top, top], color="black", linewidth=0.8, linestyle=":")
        panel.plot(peak + 0.5, top, "v", color="black", markersize=5)
        stage = program.plan.mesh(rank).coordinate("pipeline")
        named = f"rank {rank}, stage {stage}: at most {scaled(totals[peak], 'B')}, at {walk[peak][0].name}"
        _instructions(panel, [i for i, _ in walk])
        panel.set(xlim=(0, len(walk)), ylim=(0, 1.12 * highest / nbytes), ylabel=unit)
        panel.set_title(named, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1][0].set_xlabel("instructions of the step, in the order of the list")
    handles = [Patch(color=colour, label=kind) for kind, colour in reversed(MEMORY.items())]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _instructions(panel: Axes, instructions: Sequence) -> None:
    """The names of those that take slots and of the update, below their places; not all where they are many."""
    named = [(n, i.name) for n, i in enumerate(instructions) if i.slots or KINDS.get(i.label) == "update"]
    named = named[:: 1 + len(named) // 40]
    panel.set_xticks([n + 0.5 for n, _ in named], [name for _, name in named], fontsize=7)
    for label in panel.get_xticklabels():
        label.set_rotation(90 if len(named) > 20 or any(len(name) > 4 for _, name in named) else 0)


def _rows(panel: Axes, title: str, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), names, fontsize=9)
    panel.set_ylim(len(names) - 0.45, -0.55)
    panel.set_title(title, fontsize=10, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


def _place(lane: str) -> tuple[float, float]:
    """Where the bars of a lane are."""
    return COPIED if lane == COPY else MOVED if lane in COMMUNICATION_LANES else COMPUTED


def _kind(lane: str, name: str) -> str:
    if lane == COPY:
        return "copy"
    if lane in COMMUNICATION_LANES:
        return "communication"
    return KINDS.get(name.rstrip("0123456789"), "loss, other")


def _chunk(event: Event) -> tuple[int, int | None]:
    return event.rank, event.details and event.details.chunk


def _places(trace: Trace) -> dict[tuple[int, int], int]:
    """(rank, chunk) -> the place of the chunk among those of the rank, where it is not the first."""
    chunks: dict[int, set[int]] = {rank: set() for rank in trace.ranks}
    for event in trace.events:
        if event.details is not None and event.details.chunk is not None:
            chunks[event.rank].add(event.details.chunk)
    return {(rank, c): n for rank, own in chunks.items() for n, c in enumerate(sorted(own)) if n}


@lru_cache
def _shade(colour: str, place: int) -> str:
    """Lighter for each chunk of a rank after its first."""
    white = 1 - 0.55**place
    return to_hex([part + (1 - part) * white for part in to_rgb(colour)])


def _number(event: Event) -> str:
    """The micro-batch, where the event tells it."""
    return str(event.details.micro_batch) if event.details and event.details.micro_batch is not None else ""


def _write(panel: Axes, x: float, y: float, inches: float, size: float, colour: str, *texts: str) -> None:
    """The first of the texts that fits into so many inches, if one does."""
    fits = [text for text in texts if text and (0.62 * len(text) + 0.5) * size * POINT < inches]
    if fits:
        red, green, blue = to_rgb(colour)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.6
        panel.text(x, y, fits[0], ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _legend(figure: Figure, kinds: set[str], later_chunks: bool, idle: bool = False) -> None:
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items() if kind in kinds]
    handles += [Patch(color=_shade(COLOURS["forward"], 1), label=LATER_CHUNK)] * later_chunks
    handles += [Patch(color=IDLE, label="idle")] * idle
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=9)


def save(figure: Figure, path: str | PathLike) -> None:
    """Write the figure, in the format of the path's ending: .png or .svg, ValueError for others."""
    check_picture(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=130, format=Path(path).suffix[1:].lower())


def draw_traces(path: str | PathLike, traces: Sequence[Trace]) -> None:
    """See `Trace.draw`."""
    check_picture(path)
    for trace in traces:
        if not isinstance(trace, Trace):
            raise TypeError(f"draw needs traces to show beside this one, not {trace!r}")
    titles = [f"{trace.kind}: {duration(trace.step_seconds)} a step" if trace.events else "" for trace in traces]
    save(timeline_figure(list(zip(titles, traces, strict=True))), path)


def draw_program(path: str | PathLike, program: Program) -> None:
    """See `Program.draw`."""
    check_picture(path)
    save(program_figure(program), path)


def draw_memory(path: str | PathLike, program: Program, rank: int | None) -> None:
    """See `Program.draw_memory`."""
    check_picture(path)
    if rank is not None:
        check_count("rank", rank, least=0)
    if rank is None:
        stages = program.plan.mesh(0).ranks("pipeline")
        step = max(1, (len(stages) - 1) / (MOST_PANELS - 1))
        ranks = [stages[round(n * step)] for n in range(min(len(stages), MOST_PANELS))]
    else:
        ranks = [rank]
    save(memory_figure(program, ranks), path)
