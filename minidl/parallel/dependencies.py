"""Dependencies: which instruction waits for which, on all ranks together, in an order in which they can run.

The machine says for whom an instruction waits on its own rank (machine.py). Between ranks a receive waits for its send,
a send for room in the channel, and a collective for all its members. None of that depends on how long anything takes
where each lane of a rank runs for itself: so the k-th receive of a channel takes the k-th message, and what starts when
is a longest path.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from minidl.parallel.instructions import Instruction
from minidl.parallel.machine import Compiled, Entry
from minidl.parallel.meetings import CHANNEL_MESSAGES, Channel
from minidl.parallel.mesh import Axis
from minidl.trace import COMPUTE

Member = tuple[int, Instruction]  # a rank, and what it does


class Node(NamedTuple):
    """What ends at one time: an instruction of a rank, or a collective of all its members.

    first, second: how far back in the order are those that it waits for; beyond the start of a step lies the end of the
    step before. members: who does it; nobody where a node only joins others, to be waited for as one. ends: what they
    do ends here; where layers of several members communicate, there also is a node at which all of them have begun.
    inside: they do.
    """

    first: int
    second: int
    members: tuple[Member, ...]
    ends: bool = True
    inside: bool = False

    @property
    def computes(self) -> bool:
        """Whether kernels of a rank end here."""
        return bool(self.members) and self.ends and self.members[0][1].lane == COMPUTE


class Graph:
    """Nodes in an order in which they can run: one part of the lists, the step or what comes before or after it.

    first, second: how far back those are that each waits for, as numbers below zero. work: of each node the place among
    `works`, which has one node for all that take the same time.
    """

    def __init__(self, nodes: list[Node], first: list[int], second: list[int], work: list[int], works: list[Node]):
        self.nodes, self.first, self.second, self.work, self.works = nodes, first, second, work, works

    @classmethod
    def of(cls, nodes: list[Node]) -> Graph:
        numbers: dict[tuple | None, int] = {}
        work = [numbers.setdefault(_work(node), len(numbers)) for node in nodes]
        places = dict(zip(work, range(len(nodes)), strict=True))
        works = [nodes[places[number]] for number in range(len(numbers))]
        return cls(nodes, [-node.first for node in nodes], [-node.second for node in nodes], work, works)

    def __len__(self) -> int:
        return len(self.nodes)

    def ends(self, seconds: Sequence[float], steps: int = 1, start: float = 0.0) -> list[float]:
        """When nodes end in so many steps, one after the other, that begin at `start`.

        seconds: of each node, from when all that it waits for has ended. What ends in a step comes after what ended in
        the step before; before the first step, where all have ended at the start, there is one more.
        """
        found = [start] * len(self)
        for _ in range(steps):
            self.run(found, seconds, range(len(self)))
        return found

    def run(self, ends: list[float], seconds: Sequence[float], nodes: range) -> None:
        """Add when these nodes end to the `ends` of those before them."""
        append, run = ends.append, slice(nodes.start, nodes.stop)
        for first, second, time in zip(self.first[run], self.second[run], seconds[run], strict=True):
            one, other = ends[first], ends[second]
            append((one if one > other else other) + time)

    @property
    def condensed(self) -> Graph:
        """The graph without the nodes of which one knows when they end if one knows it of the others; or itself."""
        return self

    def condensed_ends(self, seconds: Sequence[float], steps: int = 1, start: float = 0.0) -> list[float]:
        """`ends` of the nodes of the condensed graph, to whom `seconds` belong."""
        return self.ends(seconds, steps, start)

    @cached_property
    def last_computing(self) -> dict[int, int]:
        """Of each rank that computes the last node that does."""
        return {node.members[0][0]: n for n, node in enumerate(self.nodes) if node.computes}


def _work(node: Node) -> tuple | None:
    """Equal for nodes that take the same time: where it computes, ranks of a stage do."""
    if not node.members:
        return None
    (rank, i), *_ = node.members
    return node.ends, node.inside, None if i.kind == "compute" else rank, i.work


class _Lane:
    """How far a lane has come. ends: its instructions' places among the nodes. waited: how many on which other lane."""

    __slots__ = ("rank", "entries", "length", "ends", "waits", "waited")

    def __init__(self, rank: _Rank, entries: tuple[Entry, ...], lengths: dict[str, int]):
        self.rank, self.entries, self.length = rank, entries, len(entries)
        self.ends: list[int] = []
        self.waits = False  # for the other members of a collective
        # All of the step before comes first on this lane, and with it what that has waited for.
        self.waited: dict[str, int] = {}
        for entry in entries:
            for name, number in entry.after:
                if number - lengths[name] > self.waited.get(name, -lengths[name]):
                    self.waited[name] = number - lengths[name]


class _Rank:
    __slots__ = ("number", "lanes", "awake")

    def __init__(self, number: int, compiled: Compiled):
        self.number, self.awake = number, True
        lengths = {name: len(entries) for name, entries in compiled.items()}
        self.lanes = {name: _Lane(self, entries, lengths) for name, entries in compiled.items()}


class Dependencies:
    """Those of the ranks with these lists, as far as they can run.

    members: who of a group of a rank, along some axes, is run. inside: the ranks with which layers of an instruction
    communicate, this one among them; None where it needs nobody who is run, as by default. nodes: in an order in which
    they can run. stuck: of each lane that does not end, the instruction at which it is.
    """

    def __init__(
        self,
        lists: dict[int, Compiled],
        members: Callable[[int, tuple[Axis, ...]], tuple[int, ...]],
        inside: Callable[[int, Instruction], tuple[int, ...] | None] | None = None,
    ):
        self._members, self._inside = members, inside
        self.nodes: list[Node] = []
        self._before: list[tuple[int, list[_Lane | int]]] = []
        self._ranks = {number: _Rank(number, compiled) for number, compiled in lists.items()}
        self._sent: defaultdict[Channel, list[int]] = defaultdict(list)
        self._taken: defaultdict[Channel, list[int]] = defaultdict(list)
        self._come: defaultdict[tuple, dict[int, _Lane]] = defaultdict(dict)  # to a meeting that is not complete
        self._met: defaultdict[tuple, int] = defaultdict(int)
        self._awake = deque(self._ranks.values())
        while self._awake:
            rank = self._awake.popleft()
            rank.awake = False
            self._advance(rank)
        lanes = [lane for rank in self._ranks.values() for lane in rank.lanes.values()]
        self.stuck: list[Member] = [
            (lane.rank.number, lane.entries[len(lane.ends)].instruction)
            for lane in lanes
            if len(lane.ends) < lane.length
        ]
        if not self.stuck:
            self._tie_to_step_before()
        for rank in self._ranks.values():
            rank.lanes.clear()  # which know their rank: else only a search for cycles would find that nobody needs them

    def _wake(self, rank: _Rank) -> None:
        if not rank.awake:
            rank.awake = True
            self._awake.append(rank)

    def _advance(self, rank: _Rank) -> None:
        """Run whatever may run now."""
        lanes, moved = rank.lanes, True
        while moved:
            moved = False
            for lane in lanes.values():
                ends, length, entries = lane.ends, lane.length, lane.entries
                while (place := len(ends)) < length and not lane.waits:
                    instruction, after = entries[place]
                    for name, number in after:
                        if number > 0 and len(lanes[name].ends) < number:
                            break
                    else:
                        if HANDLERS[instruction.kind](self, rank, lane, instruction):
                            moved = True
                            continue
                    break

    # Of one kind each: whether it has run

    def _compute(self, rank: _Rank, lane: _Lane, i: Instruction) -> bool:
        if self._inside and (group := self._inside(rank.number, i)) is not None:
            return self._meet(rank, lane, ("layers", group), len(group))
        self._add(((rank.number, i),), self._waits(lane), (lane,))
        return True

    def _send(self, rank: _Rank, lane: _Lane, i: Instruction) -> bool:
        channel = rank.number, i.to
        sent, taken = self._sent[channel], self._taken[channel]
        if len(taken) + CHANNEL_MESSAGES <= len(sent):
            return False  # until one is taken
        waits = self._waits(lane)
        if len(sent) >= CHANNEL_MESSAGES:
            waits.append(taken[len(sent) - CHANNEL_MESSAGES])
        self._add(((rank.number, i),), waits, (lane,))
        sent.append(lane.ends[-1])
        if i.to in self._ranks:
            self._wake(self._ranks[i.to])
        return True

    def _receive(self, rank: _Rank, lane: _Lane, i: Instruction) -> bool:
        channel = i.source, rank.number
        sent, taken = self._sent[channel], self._taken[channel]
        if len(sent) == len(taken):
            return False  # until one is sent
        self._add(((rank.number, i),), [*self._waits(lane), sent[len(taken)]], (lane,))
        taken.append(lane.ends[-1])
        self._wake(self._ranks[i.source])
        return True

    def _collective(self, rank: _Rank, lane: _Lane, i: Instruction) -> bool:
        members = self._members(rank.number, i.axes)
        return self._meet(rank, lane, (i.axes, members), len(members))

    def _meet(self, rank: _Rank, lane: _Lane, group: tuple, members: int) -> bool:
        """Come to the next meeting of a group; the last to come runs it for all."""
        self._met[group, rank.number] += 1
        meeting = group, self._met[group, rank.number]
        come = self._come[meeting]
        come[rank.number] = lane
        lane.waits = True
        if len(come) < members:
            return False
        del self._come[meeting]
        lanes = tuple(come[number] for number in sorted(come))
        everyone = tuple((one.rank.number, one.entries[len(one.ends)].instruction) for one in lanes)
        if group[0] != "layers" or members == 1:
            self._add(everyone, [wait for one in lanes for wait in self._waits(one)], lanes)
        else:
            waits = [self._joined(self._waits(one), 1) for one in lanes]
            self._add(everyone, [wait for own in waits for wait in own], (), ends=False, inside=True)
            begun = len(self.nodes) - 1
            for one, own, member in zip(lanes, waits, everyone, strict=True):
                self._add((member,), [*own, begun], (one,), inside=True)
        for one in lanes:
            one.waits = False
            self._wake(one.rank)
        return False  # this rank goes on when it is its turn

    def _waits(self, lane: _Lane) -> list[int | tuple[_Lane, int]]:
        """What the next instruction of a lane waits for, and those before it have not: nodes, or places in a lane.

        Those are of the step before.
        """
        lanes, place, waited = lane.rank.lanes, len(lane.ends), lane.waited
        found = [lane.ends[-1] if place else (lane, -1)]
        for name, number in lane.entries[place].after:
            if name not in waited or waited[name] < number:
                waited[name], other = number, lanes[name]
                found.append(other.ends[number - 1] if number > 0 else (other, number - 1))
        return found

    def _add(
        self, members: tuple[Member, ...], waits: list, lanes: Iterable[_Lane], ends: bool = True, inside: bool = False
    ) -> None:
        """A node that waits for these; of more than two some are joined before, the last one is not."""
        waits = self._joined(waits, 2)
        self._append(waits[0], waits[-1], members, ends, inside)
        for lane in lanes:
            lane.ends.append(len(self.nodes) - 1)

    def _joined(self, waits: list, most: int) -> list:
        """At most so many, of which the first joins others."""
        while len(waits) > most:
            first, second, *others = waits
            self._append(first, second, (), True, False)
            waits = [len(self.nodes) - 1, *others]
        return waits

    def _append(self, first, second, members: tuple[Member, ...], ends: bool, inside: bool) -> None:
        here = len(self.nodes)
        if first.__class__ is int and second.__class__ is int:
            self.nodes.append(Node(here - first, here - second, members, ends, inside))
        else:
            self._before.append((here, [first, second]))
            self.nodes.append(Node(0, 0, members, ends, inside))

    def _tie_to_step_before(self) -> None:
        """Now that it is known where all are, wait for those of the step before as well."""
        count = len(self.nodes)
        for here, waits in self._before:
            back = [here - wait if type(wait) is int else here + count - wait[0].ends[wait[1]] for wait in waits]
            self.nodes[here] = self.nodes[here]._replace(first=back[0], second=back[1])


HANDLERS = {
    "compute": Dependencies._compute,
    "send": Dependencies._send,
    "receive": Dependencies._receive,
    "collective": Dependencies._collective,
}
