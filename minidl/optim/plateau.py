"""ReduceLROnPlateau: lower learning rates when a metric gets no better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidl.optim.learning_rates import check_each, check_optimizer, of_group
from minidl.optim.optimizer import Optimizer, check_state, require


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
        check_optimizer(optimizer)
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
        check_each("rates min_lr", self.min_lr, groups)

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
                rate = max(group["lr"] * self.factor, of_group(self.min_lr, i))
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
        """Go on from what `state_dict` gave, ValueError if it is none; the rates are in the optimizer's state."""
        check_state("ReduceLROnPlateau", saved, {name: type(value) for name, value in self.state_dict().items()})
        vars(self).update({name: saved[name] for name in self.state_dict()})
