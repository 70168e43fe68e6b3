"""Schedules: functions that give, for a step counted from 0, the factor by which the learning rate is multiplied.

schedule = schedules.warmup_cosine(100, 1000)
optimizer.lr = 0.1 * schedule(step)
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant() -> Schedule:
    return lambda step: 1.0


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """Times `factor` after every `every` steps."""
    return lambda step: factor ** (step // every)


def warmup_cosine(warmup: int, steps: int, final: float = 0.0) -> Schedule:
    """From 1/warmup linearly to 1 in `warmup` steps, then by half a cosine to `final` at `steps` (Loshchilov 2017)."""
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} steps must be fewer than steps={steps}")

    def schedule(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return schedule
