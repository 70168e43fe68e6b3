"""Finding rounds: those of a graph, in the lists of its ranks and in what their instructions wait for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf, isfinite
from operator import eq

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
    middle: list[dict[int, int]] = [{} for _ in range(first, last)]
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
            self.found[rank] = _rounds_in([(works[id(i)], vars(i).get("micro_batch")) for i in own], shift)
            self.places.update(zip(map(id, own), range(len(own)), strict=True))
        # Of each node a number for its rank, its place in a round, and which of several nodes it is.
        self.keys: list[int] = []
        self.ranks: list[int] = []  # of each of these numbers

    def rounds(self) -> tuple[int, int, list[float]] | None:
        """The rounds that all ranks have, from the first to before the last; and the round of each node.

        Each instruction of a round counts its rounds so that it waits for no later one of another.
        """
        own = self._of_lists()
        if own is None:
            return None
        keys, kinds, later = self.keys, len(self.ranks), {}
        for column in (self.graph.first, self.graph.second):
            for n, back in enumerate(column):
                there = n + back
                if there >= 0 and isfinite(more := own[there] - own[n]):
                    pair = keys[n] * kinds + keys[there]
                    if more > later.get(pair, -inf):
                        later[pair] = more
        waits = [(*divmod(pair, kinds), more) for pair, more in later.items()]
        counted = {key for key, number in zip(keys, own, strict=True) if isfinite(number)}
        counts = [0.0] * kinds
        for _ in counted:
            changed = False
            for key, other, more in waits:
                if counts[key] < counts[other] + more:
                    counts[key], changed = counts[other] + more, True
            if not changed:
                break
        else:
            return None
        first = max(counts[key] for key in counted)
        last = min(counts[key] + self.found[self.ranks[key]][2] for key in counted)
        return int(first), int(last), [counts[key] + number for key, number in zip(keys, own, strict=True)]

    def _of_lists(self) -> list[float] | None:
        """The round of each node in the list of its rank; infinity for none: before them below zero."""
        found: list[float] = []
        numbers: dict[tuple[int, int, int], int] = {}
        rank, offset, following, number = 0, 0, 0, 0.0
        for node in reversed(self.graph.nodes):
            if node.members:  # what only joins others is part of what follows
                (rank, i), *others = node.members
                start, length, rounds = self.found[rank]
                number, offset, following = -inf, 0, 0
                if length and (place := self.places[id(i)] - start) >= 0:
                    number, offset = divmod(place, length)
                    number = number if number < rounds else inf
                if others and isfinite(number):
                    return None
            found.append(number)
            self.keys.append(numbers.setdefault((rank, offset, following), len(numbers)))
            following += 1
        self.keys.reverse()
        self.ranks = [rank for rank, *_ in numbers]
        return found[::-1]


def _rounds_in(marks: list[tuple[int, int | None]], shift: int) -> tuple[int, int, int]:
    """Where the rounds of a list begin, how many instructions one has, and how many rounds there are."""
    works = 1 + max((work for work, _ in marks), default=0)
    numbers = [-1 - work if m is None else m * works + work for work, m in marks]
    later = [number if number < 0 else number + shift * works for number in numbers]
    places = {number: place for place, number in enumerate(numbers) if number >= 0}
    found = 0, 0, 0
    lengths = Counter(places[number] - place for place, number in enumerate(later) if number in places)
    of_none = sum(number < 0 for number in numbers)  # for which no length is found
    for length in sorted(length for length, times in lengths.items() if times + of_none >= (LEAST - 1) * length):
        # The longest: in between, forwards may go on alone, or backwards.
        start, alike = longest(list(map(eq, later, numbers[length:])))
        if (rounds := (alike + length) // length) >= LEAST:
            found = start, length, rounds
    return found
