"""Rounds: in the middle of a step the same comes again and again, for other micro-batches.

What waits for what in a step of many micro-batches is then that of a step of few, with more rounds in its middle. That
a schedule goes on so is looked up in its orders; that the lists do, and all that their instructions wait for, is proven
on the lists and the graph of the step of few, in which some rounds are there: each is the one before it, one round
later. Where it is not so, nothing is said, and the step of many is run whole.

For example, with "1f1b" the first of two stages does

    F0 | F1 B0 | F2 B1 | F3 B2 | F4 B3 | F5 B4 | B5

with six micro-batches: between the bars are rounds of one forward and one backward, each a micro-batch later than the
one before. Without the first and the last pass of each kind, F2 B1 to F4 B3 are left: LEAST of them. With 60 there are
54 more, so the nodes of the last one are put in 54 times (`Rounds.more`). What waits within its round, or for the round
before, waits as far back as ever; what comes after the rounds and waits for what comes before them does so farther back
by 54 times the length of a round.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf, isfinite

from minidl.parallel.dependencies import Graph, Node
from minidl.parallel.instructions import Instruction
from minidl.parallel.meetings import CHANNEL_MESSAGES, Channel
from minidl.parallel.plan import Plan
from minidl.parallel.schedules import Pass, schedule_of

LEAST = 3  # rounds that are left: one may yet be unlike those that follow, and two must be alike


def few_micro_batches(plan: Plan, chunks: Sequence[int], left: int) -> int | None:
    """Micro-batches with which some rounds are `left` of the orders of all stages; None where no more are there.

    chunks: how many each stage holds.
    """
    return _few(plan.schedule, plan.pipeline, plan.micro_batches, tuple(chunks), left)


def of_a_round(plan: Plan) -> int:
    """Micro-batches."""
    return plan.pipeline if schedule_of(plan.schedule).whole_rounds else 1


@lru_cache(1024)
def _few(schedule: str, stages: int, micro_batches: int, chunks: tuple[int, ...], left: int) -> int | None:
    kind = schedule_of(schedule)
    shift = stages if kind.whole_rounds else 1

    def order(stage: int, count: int) -> list[Pass]:
        return list(kind.order(stage, stages, count, chunks[stage]))

    whole = [order(stage, micro_batches) for stage in range(stages)]
    found = [_steady(passes, shift, micro_batches) for passes in whole]
    removed = min(rounds for _, _, rounds in found) - left
    if removed <= 0:
        return None
    few = micro_batches - removed * shift
    for stage, (passes, (start, length, _)) in enumerate(zip(whole, found, strict=True)):
        rest = [Pass(k, m - removed * shift, chunk) for k, m, chunk in passes[start + removed * length :]]
        if passes[:start] + rest != order(stage, few):
            return None
    return few


def _steady(passes: list[Pass], shift: int, micro_batches: int) -> tuple[int, int, int]:
    """Where the rounds of an order begin, how many passes one has, and how many there are.

    Without the first and the last pass of each kind that a round has: of their instructions there are more.
    """
    length = len(passes) * shift // micro_batches
    start, alike = _longest([(k, m + shift, c) == p for (k, m, c), p in zip(passes, passes[length:], strict=False)])
    kinds = {(kind, chunk) for kind, _, chunk in passes[start : start + length]}
    begin = max(start, _all_come(passes, kinds))
    end = min(start + alike + length, len(passes) - _all_come(reversed(passes), kinds))
    return begin, length, max(0, end - begin) // length


def _all_come(passes: Iterable[Pass], kinds: set[tuple[str, int]]) -> int:
    """How many passes it takes until each of these kinds, which all are among them, has come."""
    missing = set(kinds)
    for count, (kind, _, chunk) in enumerate(passes, 1):
        missing.discard((kind, chunk))
        if not missing:
            return count
    raise AssertionError("each kind is of one of the passes")


def _longest(truths: Sequence[bool]) -> tuple[int, int]:
    """Where the longest run of truths begins, and its length."""
    marks = bytes(truths)
    best = max(map(len, marks.split(b"\0")))
    return marks.find(b"\1" * best), best


@dataclass(frozen=True, eq=False)
class Rounds:
    """A graph in an order in which the nodes of a round come together.

    begin, end: where the rounds begin and end that are alike. length: nodes of one. shift: its micro-batches.
    """

    graph: Graph
    begin: int
    end: int
    length: int
    shift: int

    def more(self, rounds: int) -> Graph:
        """The graph with so many more."""
        graph, end, longer = self.graph, self.end, rounds * self.length
        again = slice(end - self.length, end)
        columns = []
        for column, farther in zip((graph.first, graph.second), self._farther, strict=True):
            moved = column.copy()
            for n, times in farther:
                moved[n] += times * longer
            columns.append(moved[:end] + rounds * moved[again] + moved[end:])
        nodes, work = (list(c[:end]) + rounds * list(c[again]) + list(c[end:]) for c in (graph.nodes, graph.work))
        return Graph(nodes, *columns, work, graph.works)

    @cached_property
    def has_room(self) -> bool:
        """Whether no channel is ever full, however many rounds there are: each send waits for what was received."""
        channels: dict[Channel, list[int]] = {}
        for n in range(self.end - self.length, self.end):
            if (channel := _channel(self.graph.nodes[n], "send")) is not None:
                channels.setdefault(channel, []).append(n)
        return all(
            len(sends) * (2 + self._rounds_under_way(sends[0], channel)) <= CHANNEL_MESSAGES
            for channel, sends in channels.items()
        )

    def _rounds_under_way(self, send: int, channel: Channel) -> float:
        """By how many rounds it is ahead of a receive of its channel that it waits for, through others."""
        seen, todo = {send}, deque([send])
        while todo:
            here = todo.popleft()
            number, place = divmod(here - self.begin, self.length)  # as if there had been rounds for ever
            n = self.begin + place if here < self.begin else here
            if _channel(node := self.graph.nodes[n], "receive") == channel:
                ahead = _micro_batch(self.graph.nodes[send]) - _micro_batch(node)
                return ahead / self.shift - min(number, 0)
            for column in (self.graph.first, self.graph.second):
                there = here + column[n]
                if there not in seen and there > send - CHANNEL_MESSAGES * self.length:
                    seen.add(there)
                    todo.append(there)
        return inf

    @cached_property
    def _farther(self) -> list[list[tuple[int, int]]]:
        """Of first and second, the nodes that wait for others across the rounds that are added.

        With each, how many times farther back, as a number below zero, these are by the length of all that is added.
        """
        return [
            [(n, times) for n, back in enumerate(column) if (times := self._times(n, back))]
            for column in (self.graph.first, self.graph.second)
        ]

    def _times(self, here: int, back: int) -> int:
        there, count = here + back, len(self.graph)
        before, there = there < 0, there % count  # in the step before
        moves = there >= (self.begin if here >= self.end else self.end)  # with what comes after the rounds
        return moves - before - (here >= self.end)


def _channel(node: Node, kind: str) -> Channel | None:
    """That of a send or a receive."""
    for rank, i in node.members:
        if i.kind == kind:
            return (rank, i.to) if kind == "send" else (i.source, rank)
    return None


def _micro_batch(node: Node) -> int:
    return node.members[0][1].micro_batch


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
        start, alike = _longest([mark == other for mark, other in zip(later, marks[length:], strict=False)])
        if (rounds := (alike + length) // length) >= LEAST:
            found = start, length, rounds
    return found
