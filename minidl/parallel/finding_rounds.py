"""Finding rounds: those of a graph, in the lists of its ranks and in what their instructions wait for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf, isfinite

from minidl.parallel.dependencies import Graph
from minidl.parallel.few_micro_batches import longest
from minidl.parallel.instructions import Instruction
from minidl.parallel.rounds import LEAST, Rounds


def rounds_of(graph: Graph, lists: dict[int, Sequence[Instruction]], shift: int) -> Rounds | None:
    """The rounds of a graph of the ranks that have these lists, each of `shift` micro-batches, or None."""
    steady = _Steady(graph, lists, shift)
    count = len(graph.nodes)
    rounds = steady.rounds()
    if rounds is None:
        return None
    first, last, of_node = rounds
    if last - first < LEAST:
        return None
    head = [n for n in range(count) if of_node[n] < first]
    tail = [n for n in range(count) if of_node[n] >= last]
    keys = steady.keys
    middle: list[dict[tuple, int]] = [{} for _ in range(first, last)]
    for n in range(count):
        if first <= of_node[n] < last:
            middle[int(of_node[n]) - first][keys[n]] = n
    pattern = list(middle[1])
    if any(found.keys() != middle[1].keys() for found in middle):
        return None
    order = [*head, *(found[key] for found in middle for key in pattern), *tail]
    ordered = _in_order(graph, order)
    if ordered is None:
        return None
    length, end = len(pattern), len(head) + len(pattern) * (last - first)

    def round_at(start: int) -> tuple:
        return tuple(c[start : start + length] for c in (ordered.first, ordered.second, ordered.work))

    alike = [start for start in range(len(head), end, length) if round_at(start) == round_at(end - length)]
    if len(alike) < 2 or alike != list(range(alike[0], end, length)):
        return None
    return Rounds(ordered, alike[0], end, length, shift)


def _in_order(graph: Graph, order: list[int]) -> Graph | None:
    """The graph in another order; None if some node would come before one that it waits for."""
    count = len(order)
    places = [0] * count
    for place, n in enumerate(order):
        places[n] = place
    columns = []
    for column in (graph.first, graph.second):
        moved = []
        for place, n in enumerate(order):
            there = n + column[n]
            before = places[there % count] - (count if there < 0 else 0)
            if before >= place:
                return None
            moved.append(before - place)
        columns.append(moved)
    return Graph([graph.nodes[n] for n in order], *columns, [graph.work[n] for n in order], graph.works)


class _Steady:
    """In the list of each rank the rounds, where one begins, how long it is and how many there are."""

    def __init__(self, graph: Graph, lists: dict[int, Sequence[Instruction]], shift: int):
        self.graph = graph
        works = {id(i): work for node, work in zip(graph.nodes, graph.work, strict=True) for _, i in node.members}
        self.found: dict[int, tuple[int, int, int]] = {}
        self.places: dict[int, int] = {}
        for rank, own in lists.items():
            marks = [(works[id(i)], getattr(i, "micro_batch", None)) for i in own]
            self.found[rank] = _rounds_in(marks, shift)
            self.places |= {id(i): place for place, i in enumerate(own)}
        self.keys: list[tuple] = []  # of each node the rank, its place in a round, and which of several nodes it is

    def rounds(self) -> tuple[int, int, list[float]] | None:
        """The rounds that all ranks have, from the first to before the last; and the round of each node.

        Each instruction of a round counts its rounds so that it waits for no later one of another.
        """
        own = self._of_lists()
        if own is None:
            return None
        later: dict[tuple[tuple, tuple], float] = {}
        for column in (self.graph.first, self.graph.second):
            for n, back in enumerate(column):
                there = n + back
                if there >= 0 and isfinite(more := own[there] - own[n]):
                    pair = self.keys[n], self.keys[there]
                    if more > later.get(pair, -inf):
                        later[pair] = more
        counts = dict.fromkeys((key for key, number in zip(self.keys, own, strict=True) if isfinite(number)), 0.0)
        for _ in counts:
            changed = False
            for (key, other), more in later.items():
                if counts[key] < counts[other] + more:
                    counts[key], changed = counts[other] + more, True
            if not changed:
                break
        else:
            return None
        first = max(counts.values())
        last = min(count + self.found[rank][2] for (rank, *_), count in counts.items())
        return int(first), int(last), [counts.get(key, 0) + number for key, number in zip(self.keys, own, strict=True)]

    def _of_lists(self) -> list[float] | None:
        """The round of each node in the list of its rank; infinity for none: before them below zero."""
        found: list[float] = []
        following, number, key = 0, 0.0, ()
        for node in reversed(self.graph.nodes):
            if node.members:  # what only joins others is part of what follows
                (rank, i), *others = node.members
                start, length, rounds = self.found[rank]
                place, following = self.places[id(i)] - start, 0
                number, offset = divmod(place, length) if length else (-1, 0)
                number = -inf if number < 0 else number if number < rounds else inf
                if others and isfinite(number):
                    return None
                key = rank, offset
            found.append(number)
            self.keys.append((*key, following))
            following += 1
        self.keys.reverse()
        return found[::-1]


def _rounds_in(marks: list[tuple], shift: int) -> tuple[int, int, int]:
    """Where the rounds of a list begin, how many instructions one has, and how many rounds there are."""
    later = [(work, None if m is None else m + shift) for work, m in marks]
    places = {mark: place for place, mark in enumerate(marks) if mark[1] is not None}
    found = 0, 0, 0
    lengths = Counter(places[mark] - place for place, mark in enumerate(later) if mark in places)
    of_none = sum(m is None for _, m in marks)  # for which no length is found
    for length in sorted(length for length, times in lengths.items() if times + of_none >= (LEAST - 1) * length):
        # The longest: in between, forwards may go on alone, or backwards.
        start, alike = longest([mark == other for mark, other in zip(later, marks[length:], strict=False)])
        if (rounds := (alike + length) // length) >= LEAST:
            found = start, length, rounds
    return found
