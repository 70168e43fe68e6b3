"""How several schedulers, and a user's own hand, share the learning rates of an optimizer.

A group's rate is its base rate, `group["initial_lr"]`, passed through the optimizer's schedulers in the order in which
they were made; most of them multiply it. `group["scheduled_lr"]` is what came out last. Where `group["lr"]` is another
number, it was set by hand, or the group is new: its base rate then becomes the one of which the schedulers, as they
are, make that number. Nothing is divided out of a rate step by step: rates do not drift, and come back from 0.
"""

from __future__ import annotations

from collections.abc import Sequence


def take_in(optimizer) -> None:
    """Give the groups whose rate is not what the schedulers made of their base rate the base rate that it stands for.

    Where the schedulers make the same of any base rate (0, at the end of a decay), the base rate stays, and the rate as
    it was set stays until they give another.
    """
    for i, group in enumerate(optimizer.param_groups):
        if group["lr"] == group.get("scheduled_lr"):
            continue
        # A scheduler's rate is a straight line over the base rate: the cosine to eta_min has an offset.
        offset = _scheduled(optimizer.schedulers, 0.0, i)
        slope = _scheduled(optimizer.schedulers, 1.0, i) - offset
        base = (group["lr"] - offset) / slope if slope else group.get("initial_lr", group["lr"])
        group.update(initial_lr=base, scheduled_lr=_scheduled(optimizer.schedulers, base, i))


def scheduled_rates(schedulers: Sequence, bases: Sequence[float]) -> list[float]:
    """What `schedulers` make of the groups' base rates."""
    return [_scheduled(schedulers, base, i) for i, base in enumerate(bases)]


def _scheduled(schedulers: Sequence, rate: float, group: int) -> float:
    for scheduler in schedulers:
        rate = scheduler.scheduled(rate, group, scheduler.last_epoch)
    return rate
