"""What a step takes, of some that have been run one after the other without a pause."""

from collections.abc import Sequence


class StepTimes:
    """Times of `steps` steps; the second is nearly like all that follow, but that nothing follows it.

    prologue_seconds: of what comes before the first step. step_ends: when the last compute lane has ended each step; of
    a single one, when all of it has ended.
    """

    prologue_seconds: float
    step_ends: Sequence[float]

    @property
    def first_step_seconds(self) -> float:
        """From the end of the prologue until the compute lanes have ended the first step."""
        return self.step_ends[0] - self.prologue_seconds

    @property
    def step_seconds(self) -> float:
        """From when they have ended the step before until they have ended the last one."""
        before, end = [self.prologue_seconds, *self.step_ends][-2:]
        return end - before
