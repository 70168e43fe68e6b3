"""Schedules: functions that give, for a step counted from 0, the factor by which the learning rate is multiplied.

schedule = lr_schedules.warmup_cosine(100, 1000)
optimizer.lr = 0.1 * schedule(step)

`train(…, lr_schedule=schedule)` does that; `lr_scheduler` has PyTorch's classes around the same functions.
"""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def constant() -> Schedule:
    return lambda step: 1.0


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """Times `factor` after every `every` steps."""
    _check_steps("every", every)
    return lambda step: factor ** (step // every)


def multi_step(milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """Times `factor` at each of the steps `milestones`."""
    milestones = tuple(milestones)
    return lambda step: factor ** sum(step >= milestone for milestone in milestones)


def exponential(factor: float) -> Schedule:
    """Times `factor` after every step."""
    return lambda step: factor**step


def linear(start: float, end: float, steps: int) -> Schedule:
    """From `start` in a straight line to `end` at `steps`, and there it stays."""
    _check_steps("steps", steps)
    return lambda step: start + (end - start) * min(step, steps) / steps


def polynomial(steps: int, power: float = 1.0) -> Schedule:
    """(1 - step / steps)^power: from 1 to 0 at `steps`, and there it stays."""
    _check_steps("steps", steps)
    return lambda step: (1 - min(step, steps) / steps) ** power


def cosine(steps: int, final: float = 0.0) -> Schedule:
    """From 1 by half a cosine to `final` at `steps` (Loshchilov and Hutter 2017, equation 5), then up again, and so on.

    `train` never comes that far where `steps` are all its steps.
    """
    _check_steps("steps", steps)
    return lambda step: _half_cosine(1, final, step / steps)


def cosine_restarts(first: int, times: int = 1, final: float = 0.0) -> Schedule:
    """Cosines from 1 to `final` one after the other: `first` steps long, each `times` as long as the one before it.

    Loshchilov and Hutter 2017, SGDR.
    """
    _check_steps("first", first)
    _check_steps("times", times)

    def schedule(step: int) -> float:
        length = first
        while step >= length:
            step, length = step - length, length * times
        return _half_cosine(1, final, step / length)

    return schedule


def one_cycle(
    steps: int, rise: float = 0.3, divide: float = 25.0, final_divide: float = 1e4, anneal: str = "cos"
) -> Schedule:
    """From 1/divide up to 1 within the share `rise` of `steps`, and down to 1/(divide final_divide) at the last step.

    Smith and Topin 2018, with PyTorch's two phases; anneal: along half a cosine ("cos") or a straight line ("linear").
    """
    _check_steps("steps", steps)
    if anneal not in ("cos", "linear"):
        raise ValueError(f"unknown anneal {anneal!r}: choose cos or linear")
    if not 0 <= rise <= 1:
        raise ValueError(f"rise={rise}, it must be between 0 and 1")
    between = _half_cosine if anneal == "cos" else _line
    top, last = rise * steps - 1, steps - 1

    def schedule(step: int) -> float:
        if step < top:
            return between(1 / divide, 1, step / top)
        return between(1, 1 / (divide * final_divide), min(1.0, (step - top) / (last - top)) if last > top else 0.0)

    return schedule


def linear_warmup(steps: int, then: Schedule) -> Schedule:
    """From 1/steps linearly to 1 in `steps` steps, after which `then` begins at its step 0 (Goyal et al. 2017, 2.2)."""
    return lambda step: (step + 1) / steps if step < steps else then(step - steps)


def warmup_cosine(warmup: int, steps: int, final: float = 0.0) -> Schedule:
    """From 1/warmup linearly to 1 in `warmup` steps, then by half a cosine to `final` at `steps`, where it stays."""
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} steps must be fewer than steps={steps}")
    down = cosine(steps - warmup, final)
    return linear_warmup(warmup, lambda step: down(min(step, steps - warmup)))


def sequence(parts: Sequence[Schedule], milestones: Sequence[int]) -> Schedule:
    """One after the other: each of `parts` but the first begins, at its step 0, at its step of `milestones`."""
    parts, begins = tuple(parts), (0, *milestones)
    if len(begins) != len(parts) or list(begins) != sorted(begins):
        raise ValueError(f"{len(parts)} schedules need {len(parts) - 1} rising milestones, not {tuple(milestones)}")

    def schedule(step: int) -> float:
        i = sum(step >= begin for begin in begins) - 1
        return parts[i](step - begins[i])

    return schedule


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _check_steps(name: str, steps: int) -> None:
    if not steps >= 1:
        raise ValueError(f"{name}={steps}, it must be at least 1")
