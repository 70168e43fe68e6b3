"""Rounds: in the middle of a step the same comes again and again, for other micro-batches.

What waits for what in a step of many micro-batches is then that of a step of few, with more rounds in its middle. That
a schedule goes on so is looked up in its orders (few_micro_batches.py); that the lists do, and all that their
instructions wait for, is proven on the lists and the graph of the step of few (finding_rounds.py), in which some rounds
are there: each is the one before it, one round later. Where it is not so, nothing is said, and the step of many is run
whole.

For example, with "1f1b" the first of two stages does

    F0 | F1 B0 | F2 B1 | F3 B2 | F4 B3 | F5 B4 | B5

with six micro-batches: between the bars are rounds of one forward and one backward, each a micro-batch later than the
one before. Without the first and the last pass of each kind, F2 B1 to F4 B3 are left: LEAST of them. With 60 there are
54 more, so the nodes of the last one are put in 54 times (`Rounds.more`). What waits within its round, or for the round
before, waits as far back as ever; what comes after the rounds and waits for what comes before them does so farther back
by 54 times the length of a round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from operator import sub

from minidl.parallel.dependencies import Graph, Node
from minidl.parallel.meetings import CHANNEL_MESSAGES, Channel

LEAST = 3  # rounds that are left: one may yet be unlike those that follow, and two must be alike


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
        return Longer(self, rounds)

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
    def reach(self) -> int:
        """How many nodes before a round decide when it ends; at least those of all rounds that are there but one."""
        last = slice(self.end - self.length, self.end)
        return max(self.end - self.begin - self.length, *(-min(c[last]) for c in (self.graph.first, self.graph.second)))

    @cached_property
    def may_be_skipped(self) -> bool:
        """Whether what comes before and in the rounds waits for no round of the step before.

        It is so where a lane goes on where it ended. Then only what comes after them has to know when rounds end.
        """
        count = len(self.graph)
        return not any(
            n + back < 0 and self.begin <= (n + back) % count < self.end
            for column in (self.graph.first, self.graph.second)
            for n, back in enumerate(column[: self.end])
        )

    @cached_property
    def farther(self) -> list[list[tuple[int, int]]]:
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


class Longer(Graph):
    """The graph of `rounds` with so many `added`. All its nodes are made when they are asked for.

    Once all of a round ends so much later than the one before it, all that follow do: each node is as much later as
    those that it waits for. So nothing has to be run of them (De Schutter 2000, "On the ultimate behavior of the
    sequence of consecutive powers of a matrix in the max-plus algebra": such systems come to a cycle; if that has
    several rounds, or parts with rates of their own, it is not looked for, and all rounds are run).
    """

    def __init__(self, rounds: Rounds, added: int):
        self.rounds, self.added, self.works = rounds, added, rounds.graph.works

    @property
    def condensed(self) -> Graph:
        return self.rounds.graph if self.rounds.may_be_skipped else self

    def __len__(self) -> int:
        return len(self.rounds.graph) + self.added * self.rounds.length

    @cached_property
    def nodes(self) -> list[Node]:
        return self._with_more(self.rounds.graph.nodes)

    @cached_property
    def work(self) -> list[int]:
        return self._with_more(self.rounds.graph.work)

    @cached_property
    def first(self) -> list[int]:
        return self._with_more(self._moved(0))

    @cached_property
    def second(self) -> list[int]:
        return self._with_more(self._moved(1))

    def _with_more(self, column: list) -> list:
        end = self.rounds.end
        return column[:end] + self.added * column[end - self.rounds.length : end] + column[end:]

    def _moved(self, which: int) -> list[int]:
        moved = (self.rounds.graph.first, self.rounds.graph.second)[which].copy()
        for n, times in self.rounds.farther[which]:
            moved[n] += times * self.added * self.rounds.length
        return moved

    def condensed_ends(self, seconds: Sequence[float], steps: int = 1, start: float = 0.0) -> list[float]:
        if self.condensed is self:
            return self.ends(seconds, steps, start)
        graph, begin, end = self.rounds.graph, self.rounds.begin, self.rounds.end
        last_round = range(end - self.rounds.length, end)
        found = [start] * len(graph)
        for _ in range(steps):
            base, left = len(found), self.added
            graph.run(found, seconds, range(end))
            while left and (shift := self._shift(found)) is None:
                graph.run(found, seconds, last_round)
                left -= 1
            del found[base + begin : len(found) + begin - end]  # the last rounds stay
            if left:
                found[base + begin :] = [ended + left * shift for ended in found[base + begin :]]
            graph.run(found, seconds, range(end, len(graph)))
        return found

    def _shift(self, ends: list[float]) -> float | None:
        """By how much the last nodes ended after those a round before; None where not all of them by as much.

        They are as many as decide when a round ends, so the next one will, too, and the next.
        """
        length, count = self.rounds.length, self.rounds.reach
        shifts = set(map(sub, ends[-count:], ends[-count - length : -length]))
        return shifts.pop() if len(shifts) == 1 else None


def _channel(node: Node, kind: str) -> Channel | None:
    """That of a send or a receive."""
    for rank, i in node.members:
        if i.kind == kind:
            return (rank, i.to) if kind == "send" else (i.source, rank)
    return None


def _micro_batch(node: Node) -> int:
    return node.members[0][1].micro_batch
