"""PyTorch's schedulers: each sets the learning rates of an optimizer by a schedule of `schedules`.

A scheduler sets the rates of step 0 when it is made; `step()` after each step (or epoch, as you count) sets the next.
Several on one optimizer multiply, whichever is stepped first: a warm-up and a decay, say. In PyTorch those that have no
recursive form (LambdaLR, CosineAnnealingWarmRestarts, SequentialLR where its next part begins) overwrite what the
others did; here they multiply like the rest. One that is stepped no more keeps its last factor, as in PyTorch:
`optimizer.schedulers.clear()` before another course is begun from the base rates. From a rate that is set by hand, and
from that of a group that is added later, all go on in proportion (see `rates`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidl.optim import schedules
from minidl.optim.optimizer import Optimizer, require
from minidl.optim.rates import set_rates, take_in
from minidl.optim.schedules import Schedule


class LRScheduler:
    """Multiplies the learning rate of each group by `schedule(step)`: PyTorch's LambdaLR.

    schedule: for all groups, or a list with one for each, which refuses groups that are added later. base_lrs: the
    groups' rates without schedulers. last_epoch: the step whose rates are set.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule | Sequence[Schedule]):
        _check_optimizer(optimizer)
        listed = isinstance(schedule, Sequence)
        if not all(map(callable, schedule if listed else [schedule])):
            raise TypeError(f"a scheduler needs a function of the step, or a list of them, not {schedule!r}")
        self.schedule = list(schedule) if listed else schedule
        self.optimizer, self.last_epoch = optimizer, 0
        self.check_groups(len(optimizer.param_groups))
        take_in(optimizer)
        set_rates(optimizer, [*self._others(), self])

    @property
    def base_lrs(self) -> list[float]:
        return [group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups]

    def scheduled(self, rate: float, group: int, step: int) -> float:
        """What becomes at `step` of `rate`, which the group of this number would have without this scheduler."""
        return rate * _of_group(self.schedule, group)(step)

    def check_groups(self, groups: int) -> None:
        """ValueError unless the scheduler can serve so many groups."""
        _check_each("schedules", self.schedule, groups)

    def step(self) -> None:
        """Set the rates of the next step."""
        take_in(self.optimizer)
        self.last_epoch += 1
        try:
            set_rates(self.optimizer, self.optimizer.schedulers)
        except Exception:  # of a user's schedule: no rate was set
            self.last_epoch -= 1
            raise

    def get_last_lr(self) -> list[float]:
        """The learning rates of the groups as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """{"last_epoch": step, "base_lrs": [one for each group]}; what was set by hand is in the optimizer's state."""
        return {"last_epoch": self.last_epoch, "base_lrs": self.base_lrs}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave, and set its rates. ValueError for another number of groups.

        The optimizer's state may be loaded before or after.
        """
        groups, bases = self.optimizer.param_groups, list(saved["base_lrs"])
        if len(bases) != len(groups):
            raise ValueError(f"the saved scheduler has {len(bases)} parameter groups, the optimizer {len(groups)}")
        take_in(self.optimizer)
        for group, base in zip(groups, bases, strict=True):
            group["initial_lr"] = base
        self.last_epoch = saved["last_epoch"]
        set_rates(self.optimizer, self.optimizer.schedulers)

    def _others(self) -> list:
        """The schedulers of the optimizer beside this one, when it is made."""
        return self.optimizer.schedulers


class StepLR(LRScheduler):
    """Times gamma after every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        super().__init__(optimizer, schedules.step_decay(step_size, gamma))


class MultiStepLR(LRScheduler):
    """Times gamma at each of the steps `milestones`."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        super().__init__(optimizer, schedules.multi_step(milestones, gamma))


class ExponentialLR(LRScheduler):
    """Times gamma after every step."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        super().__init__(optimizer, schedules.exponential(gamma))


class LinearLR(LRScheduler):
    """From start_factor in a straight line to end_factor after total_iters steps: a warm-up."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ):
        super().__init__(optimizer, schedules.linear(start_factor, end_factor, total_iters))


class PolynomialLR(LRScheduler):
    """(1 - step / total_iters)^power."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        super().__init__(optimizer, schedules.polynomial(total_iters, power))


class _Cosine(LRScheduler):
    """Between the rate and eta_min; `schedule` says which share of the distance is left."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule, eta_min: float):
        self.eta_min = eta_min
        super().__init__(optimizer, schedule)

    def scheduled(self, rate, group, step):
        return self.eta_min + super().scheduled(rate - self.eta_min, group, step)


class CosineAnnealingLR(_Cosine):
    """By half a cosine down to the rate eta_min after T_max steps, then up again.

    Schedulers made after this one multiply eta_min, too; after a rate was set by hand it is in proportion to that.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        super().__init__(optimizer, schedules.cosine(T_max), eta_min)


class CosineAnnealingWarmRestarts(_Cosine):
    """Cosines down to the rate eta_min: over T_0 steps, then over T_mult as many, and so on."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        super().__init__(optimizer, schedules.cosine_restarts(T_0, T_mult), eta_min)


class OneCycleLR(LRScheduler):
    """Up to the rate max_lr (of all groups, or a list) and down to almost nothing in total_steps.

    total_steps: or epochs times steps_per_epoch. The cycle begins at max_lr / div_factor, which becomes the base rate
    of the groups: it takes the place of the schedulers made before it, as in PyTorch; those made later multiply it. A
    group that is added later goes from its own rate. Only the learning rate goes in a cycle, not the momentum, as
    PyTorch has it with cycle_momentum=False.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        *,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        _check_optimizer(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        cycle = schedules.one_cycle(total_steps, pct_start, div_factor, final_div_factor, anneal_strategy)
        _check_each("rates max_lr", max_lr, len(optimizer.param_groups))
        take_in(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            group.update(initial_lr=_of_group(max_lr, i) / div_factor, by_hand=1.0)
        super().__init__(optimizer, lambda step: div_factor * cycle(step))

    def _others(self):
        return [scheduler for scheduler in self.optimizer.schedulers if isinstance(scheduler, ReduceLROnPlateau)]


class SequentialLR(LRScheduler):
    """Schedulers one after the other: each but the first begins, at its step 0, at its step of `milestones`.

    They act through this one alone from now on. ReduceLROnPlateau cannot be among them.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        self._parts = list(schedulers)
        for part in self._parts:
            if not isinstance(part, LRScheduler):
                raise TypeError(f"SequentialLR needs schedulers of a fixed schedule, not a {type(part).__name__}")
            if part.optimizer is not optimizer:
                raise ValueError("SequentialLR needs schedulers of the optimizer that it is given")
        # The part at a step, and that part's own step.
        self._place = schedules.sequence([lambda step, part=part: (part, step) for part in self._parts], milestones)
        super().__init__(optimizer, schedules.constant())

    def scheduled(self, rate, group, step):
        part, own_step = self._place(step)
        return part.scheduled(rate, group, own_step)

    def check_groups(self, groups):
        for part in self._parts:
            part.check_groups(groups)

    def _others(self):
        return [scheduler for scheduler in self.optimizer.schedulers if scheduler not in self._parts]


class ReduceLROnPlateau:
    """Multiplies the learning rates by `factor` when a metric has not become better for more than `patience` steps.

    mode: "min" or "max", which is better. threshold: a change that is smaller is none, relative to the best metric so
    far or, with threshold_mode "abs", as it is. cooldown: steps after a reduction in which nothing is counted. min_lr:
    of all groups, or a list, which refuses groups that are added later. eps: a reduction that is smaller is not made.
    Other schedulers go on from a reduced rate as from one that was set by hand.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        _check_optimizer(optimizer)
        require(factor < 1, f"factor={factor}, it must be below 1")
        require(mode in ("min", "max"), f"unknown mode {mode!r}: choose min or max")
        require(threshold_mode in ("rel", "abs"), f"unknown threshold_mode {threshold_mode!r}: choose rel or abs")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.check_groups(len(optimizer.param_groups))
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        optimizer.schedulers = [*optimizer.schedulers, self]

    def scheduled(self, rate: float, group: int, step: int) -> float:
        """`rate` itself: what is reduced is the rate that all schedulers go on from."""
        return rate

    def check_groups(self, groups: int) -> None:
        """ValueError unless there is a min_lr for each of so many groups."""
        _check_each("rates min_lr", self.min_lr, groups)

    def step(self, metrics: float) -> None:
        """Take the metric of one more step, and reduce the rates if it is time."""
        metric = float(metrics)
        self.last_epoch += 1
        if self._better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for i, group in enumerate(self.optimizer.param_groups):
                rate = max(group["lr"] * self.factor, _of_group(self.min_lr, i))
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, metric: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return sign * metric < sign * self.best - self.threshold
        return sign * metric < sign * self.best * (1 - sign * self.threshold)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave; the rates are in the optimizer's state."""
        vars(self).update({name: saved[name] for name in self.state_dict()})


def _check_optimizer(optimizer: Optimizer) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a scheduler needs an Optimizer, not a {type(optimizer).__name__}")


def _of_group(value, group: int):
    """An option of a group: `value` itself, or its element of that number if there is one for each."""
    return value[group] if isinstance(value, list | tuple) else value


def _check_each(name: str, value, groups: int) -> None:
    if isinstance(value, list | tuple) and len(value) != groups:
        raise ValueError(f"{len(value)} {name} do not fit {groups} parameter groups")
