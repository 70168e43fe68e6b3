"""Cores that share their time among the jobs on them, in simulated time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.clock import Action, Clock


@dataclass(slots=True)
class _Job:
    core: int
    remaining: float  # seconds of work at full speed
    contention: float  # by what factor the job is slower while every core is busy
    done: Action


class SharedCores:
    """`cores` cores of one machine: jobs on one core share it equally, and busy cores slow one another down.

    oversubscription: by what factor jobs that share a core take longer than one after the other.
    """

    def __init__(self, clock: Clock, cores: int, oversubscription: float = 1.0):
        self.clock, self.cores, self.oversubscription = clock, cores, oversubscription
        self.jobs: list[_Job] = []
        self._since, self._version = 0.0, 0

    def work(self, core: int, seconds: float, contention: float, done: Action) -> None:
        """Call `done` when the job has had `seconds` of its core at full speed."""
        self._advance()
        self.jobs.append(_Job(core, seconds, contention, done))
        self._plan()

    def _speed(self, job: _Job) -> float:
        jobs = sum(other.core == job.core for other in self.jobs)
        share = 1 / (jobs * self.oversubscription) if jobs > 1 else 1.0
        busy = len({other.core for other in self.jobs})
        others = (busy - 1) / (self.cores - 1) if self.cores > 1 else 0.0
        return share / (1 + (job.contention - 1) * others)

    def _advance(self) -> None:
        """Bring every job's remaining work up to now."""
        elapsed, self._since = self.clock.now - self._since, self.clock.now
        if elapsed:
            for job, speed in [(job, self._speed(job)) for job in self.jobs]:
                job.remaining -= elapsed * speed

    def _plan(self) -> None:
        """Wake up when the next job ends; an earlier plan is void."""
        self._version += 1
        if self.jobs:
            version = self._version
            soonest = min(max(job.remaining, 0.0) / self._speed(job) for job in self.jobs)
            self.clock.after(soonest, lambda: self._finish(version))

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        # Late on the clock, what is left of a job may be less than the clock can tell apart: then it is done too.
        least = max(1e-12, 2 * math.ulp(self.clock.now))
        ended = [job for job in self.jobs if job.remaining <= least]
        self.jobs = [job for job in self.jobs if job.remaining > least]
        self._plan()
        for job in ended:
            job.done()
