"""Meetings: where ranks that do not really run wait for one another. For the checker and the simulator's engine.

What a message or a visitor is, they decide; a real worker has process groups instead.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

CHANNEL_MESSAGES = 64  # that may be under way from one rank to another before the sender waits
Channel = tuple[int, int]  # from rank, to rank
Brought = TypeVar("Brought")


class Meetings(Generic[Brought]):
    """Channels between ranks, first-in first-out, and collectives that all members of a group come to."""

    def __init__(self):
        self.messages: defaultdict[Channel, deque[Brought]] = defaultdict(deque)
        self._senders: dict[Channel, Callable[[], None]] = {}  # who waits for room
        self._receivers: dict[Channel, Callable[[], None]] = {}  # who waits for a message
        self._groups: dict[Hashable, dict[int, Brought]] = {}  # meetings to which not all have come
        self._joined: defaultdict[tuple[Hashable, int], int] = defaultdict(int)  # (group, rank) -> how often

    def room(self, channel: Channel, wake: Callable[[], None]) -> bool:
        """Whether there is room for a message; if not, `wake` is called when there is."""
        if len(self.messages[channel]) < CHANNEL_MESSAGES:
            return True
        self._senders[channel] = wake
        return False

    def put(self, channel: Channel, message: Brought) -> None:
        """Leave a message where there is room."""
        self.messages[channel].append(message)
        if channel in self._receivers:
            self._receivers.pop(channel)()

    def look(self, channel: Channel, wake: Callable[[], None]) -> bool:
        """Whether there is a message to take; if not, `wake` is called when one comes."""
        if not self.messages[channel]:
            self._receivers[channel] = wake
        return bool(self.messages[channel])

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
