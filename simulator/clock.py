"""A clock with future events. Knows nothing of training."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Clock:
    """Runs actions in the order of their times."""

    def __init__(self):
        self.now = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._order = count()  # ties run in the order in which they were asked for

    def after(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), action))

    def run(self) -> None:
        """Run until nothing is left to happen."""
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            action()
