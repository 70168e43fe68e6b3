"""PyTorch's schedulers: they set the learning rates of an optimizer to its base rates times a schedule of `schedules`.

A scheduler sets the rates of step 0 when it is made; `step()` after each step (or epoch, as you count) sets the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidl.optim import schedules
from minidl.optim.optimizer import Optimizer, require
from minidl.optim.schedules import Schedule


class LRScheduler:
    """Sets the learning rate of each group to its base rate times `schedule(step)`.

    schedule: for all groups, or a list with one for each. base_lrs: the groups' rates when their first scheduler was
    made; later changes of the rates by hand are overwritten. last_epoch: the step whose rates are set.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule | Sequence[Schedule]):
        _check_optimizer(optimizer)
        groups = optimizer.param_groups
        self.schedules = [schedule] * len(groups) if callable(schedule) else list(schedule)
        if len(self.schedules) != len(groups):
            raise ValueError(f"{len(self.schedules)} schedules do not fit {len(groups)} parameter groups")
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        self.last_epoch = 0
        self._set()

    def step(self) -> None:
        """Set the rates of the next step."""
        self.last_epoch += 1
        self._set()

    def rates(self, step: int) -> list[float]:
        """The learning rates of the groups at `step`."""
        return [base * schedule(step) for base, schedule in zip(self.base_lrs, self.schedules, strict=True)]

    def get_last_lr(self) -> list[float]:
        """The learning rates that were set last."""
        return self.rates(self.last_epoch)

    def state_dict(self) -> dict:
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave, and set its rates."""
        self.last_epoch, self.base_lrs = saved["last_epoch"], list(saved["base_lrs"])
        self._set()

    def _set(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            group["lr"] = rate


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


class CosineAnnealingLR(LRScheduler):
    """By half a cosine down to the rate eta_min after T_max steps, then up again."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        super().__init__(optimizer, [schedules.cosine(T_max, final) for final in _finals(optimizer, eta_min)])


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosines down to the rate eta_min: over T_0 steps, then over T_mult as many, and so on."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        finals = _finals(optimizer, eta_min)
        super().__init__(optimizer, [schedules.cosine_restarts(T_0, T_mult, final) for final in finals])


class OneCycleLR(LRScheduler):
    """Up to the rate max_lr (of all groups, or a list) and down to almost nothing in total_steps.

    total_steps: or epochs times steps_per_epoch. Only the learning rate goes in a cycle, not the momentum, as PyTorch
    has it with cycle_momentum=False.
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
        for group, rate in zip(optimizer.param_groups, _each(max_lr, optimizer), strict=True):
            group["initial_lr"] = rate
        super().__init__(
            optimizer, schedules.one_cycle(total_steps, pct_start, div_factor, final_div_factor, anneal_strategy)
        )


class SequentialLR(LRScheduler):
    """Schedulers one after the other: each but the first begins, at its step 0, at its step of `milestones`."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
            raise ValueError("SequentialLR needs schedulers of the optimizer that it is given")
        self._rates = schedules.sequence([scheduler.rates for scheduler in schedulers], milestones)
        super().__init__(optimizer, schedules.constant())

    def rates(self, step):
        return self._rates(step)


class ReduceLROnPlateau:
    """Multiplies the learning rates by `factor` when a metric has not become better for more than `patience` steps.

    mode: "min" or "max", which is better. threshold: a change that is smaller is none, relative to the best metric so
    far or, with threshold_mode "abs", as it is. cooldown: steps after a reduction in which nothing is counted. min_lr:
    of all groups, or a list. eps: a reduction that is smaller is not made.
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
        self.min_lrs, self.eps = _each(min_lr, optimizer), eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

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
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, least)
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


def _each(value: float | Sequence[float], optimizer: Optimizer) -> list[float]:
    """One value for each group."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{values} has {len(values)} values for {groups} parameter groups")
    return values


def _finals(optimizer: Optimizer, rate: float) -> list[float]:
    """The factor that makes `rate` of each group's base rate."""
    _check_optimizer(optimizer)
    bases = (group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
    return [rate / base if base else 0.0 for base in bases]
