"""Meetings: where ranks that do not really run wait for one another. For the checker and the simulator's engine.

What a message is, and what is brought to a collective, they decide; a real worker has process groups instead.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from minidl.parallel.mesh import Axis
from minidl.parallel.plan import Plan

CHANNEL_MESSAGES = 128  # that may be under way from one rank to another before the sender waits
Channel = tuple[int, int]  # from rank, to rank
Brought = TypeVar("Brought")


class Members:
    """Who of a group is run, as a tuple of ranks: `members(rank, axes)`. ranks: all that are run."""

    def __init__(self, plan: Plan, ranks: Iterable[int]):
        self._meshes = {rank: plan.mesh(rank) for rank in ranks}
        self._known: dict[tuple[int, tuple[Axis, ...]], tuple[int, ...]] = {}

    def __call__(self, rank: int, axes: tuple[Axis, ...]) -> tuple[int, ...]:
        if (rank, axes) not in self._known:
            everyone = self._meshes[rank].ranks(*axes)
            if len(everyone) <= len(self._meshes):
                run = tuple(other for other in everyone if other in self._meshes)
            else:
                run = tuple(sorted((other for other in self._meshes if other in everyone), key=everyone.index))
            self._known[rank, axes] = run
        return self._known[rank, axes]


class Meetings(Generic[Brought]):
    """Channels between ranks, first-in first-out, and collectives that all members of a group come to."""

    def __init__(self):
        self.messages: defaultdict[Channel, deque[Brought]] = defaultdict(deque)
        self._senders: dict[Channel, Callable[[], None]] = {}  # who waits for room
        self._receivers: dict[Channel, Callable[[], None]] = {}  # who waits for a message
        self._groups: dict[Hashable, dict[int, Brought]] = {}  # meetings to which not all have come
        self._joined: defaultdict[tuple[Hashable, int], int] = defaultdict(int)  # (group, rank) -> how often

    def has_room(self, channel: Channel) -> bool:
        """Whether a message more may be under way."""
        return len(self.messages[channel]) < CHANNEL_MESSAGES

    def when_room(self, channel: Channel, wake: Callable[[], None]) -> None:
        """Call `wake` once a message has been taken."""
        self._senders[channel] = wake

    def put(self, channel: Channel, message: Brought) -> None:
        """Leave a message where there is room."""
        self.messages[channel].append(message)
        if channel in self._receivers:
            self._receivers.pop(channel)()

    def has_message(self, channel: Channel) -> bool:
        return bool(self.messages[channel])

    def when_message(self, channel: Channel, wake: Callable[[], None]) -> None:
        """Call `wake` once there is a message."""
        self._receivers[channel] = wake

    def take(self, channel: Channel) -> Brought:
        """The next message."""
        message = self.messages[channel].popleft()
        if channel in self._senders:
            self._senders.pop(channel)()
        return message

    def join(self, group: Hashable, members: int, rank: int, brought: Brought) -> dict[int, Brought] | None:
        """Come to the group's next meeting; for the last of its members, what each has brought, in order of arrival."""
        self._joined[group, rank] += 1
        key = group, self._joined[group, rank]
        meeting = self._groups.setdefault(key, {})
        meeting[rank] = brought
        return self._groups.pop(key) if len(meeting) == members else None
