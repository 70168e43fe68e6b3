"""How several schedulers, and a user's own hand, share the learning rates of an optimizer.

Of each group:
    initial_lr      its base rate
    scheduled_lr    what the schedulers make of that, one after the other, in the order in which they were made
    by_hand         the factor between that and the rate: 1, until a rate is set by hand or the group was added later
    lr              the rate, by_hand * scheduled_lr; where it is not, it was set by hand since

Nothing is multiplied into a rate step by step, so rates do not drift, and come back from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl.optim.optimizer import Optimizer


def take_in(optimizer: Optimizer) -> None:
    """Make `by_hand` fit the rates that were set by hand since. Where `scheduled_lr` is 0, no factor fits: it stays."""
    for i, group in enumerate(optimizer.param_groups):
        if "scheduled_lr" not in group:
            base = group.setdefault("initial_lr", group["lr"])
            group.update(scheduled_lr=_scheduled(optimizer.schedulers, base, i), by_hand=1.0)
        if group["scheduled_lr"] and group["lr"] != group["by_hand"] * group["scheduled_lr"]:
            group["by_hand"] = group["lr"] / group["scheduled_lr"]


def set_rates(optimizer: Optimizer, schedulers: Sequence) -> None:
    """Make these the optimizer's schedulers, and set the rates that change by it: none of them if a schedule fails."""
    rates = [_scheduled(schedulers, group["initial_lr"], i) for i, group in enumerate(optimizer.param_groups)]
    optimizer.schedulers = list(schedulers)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if rate != group["scheduled_lr"]:
            group["scheduled_lr"], group["lr"] = rate, group["by_hand"] * rate


def _scheduled(schedulers: Sequence, rate: float, group: int) -> float:
    for scheduler in schedulers:
        rate = scheduler.scheduled(rate, group, scheduler.last_epoch)
    return rate


def check_optimizer(optimizer: Optimizer) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a scheduler needs an Optimizer, not a {type(optimizer).__name__}")


def of_group(value, group: int):
    """An option of a group: `value` itself, or its element of that number if there is one for each."""
    return value[group] if isinstance(value, list | tuple) else value


def check_each(name: str, value, groups: int) -> None:
    if isinstance(value, list | tuple) and len(value) != groups:
        raise ValueError(f"{len(value)} {name} do not fit {groups} parameter groups")
