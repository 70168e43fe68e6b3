"""Patience: how a rank that waits gives way to others."""

import os
import time

NAP_SECONDS = 50e-6


class Patience:
    """crowded: there are more ranks than cores, so that a rank that waits keeps others from their work.

    Who only yields comes back at once and takes up to half of a core that another rank computes on; who sleeps notices
    late. So a rank just looks again at first, then yields, and sleeps when the wait turns out to be long.
    """

    def __init__(self, crowded: bool):
        self.looks_before_yield, self.looks_before_nap = (0, 10) if crowded else (10, 2000)
        self._since, self._looks = 0, 0  # what had begun when it began to wait, and looks since

    def give_way(self, begun: int) -> None:
        """Wait for a moment. begun: a count that grows when this rank begins something: then the wait is a new one."""
        self._looks = looks = self._looks + 1 if begun == self._since else 0
        self._since = begun
        if looks >= self.looks_before_nap:
            time.sleep(NAP_SECONDS)
        elif looks >= self.looks_before_yield:
            os.sched_yield()
