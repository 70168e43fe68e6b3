"""PyTorch's schedulers: each sets the learning rates of an optimizer by a schedule of `lr_schedules`.

A scheduler sets the rates of step 0 when it is made; `step()` after each step (or epoch, as you count) sets the next.
Several on one optimizer multiply, whichever is stepped first: a warm-up and a decay, say. In PyTorch those that have no
recursive form (LambdaLR, CosineAnnealingWarmRestarts, SequentialLR where its next part begins) overwrite what the
others did; here they multiply like the rest. One that is stepped no more keeps its last factor, as in PyTorch:
`optimizer.schedulers.clear()` before another course is begun from the base rates. From a rate that is set by hand, and
from that of a group that is added later, all go on in proportion (see `learning_rates`).
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl.optim import lr_schedules
from minidl.optim.learning_rates import check_each, check_optimizer, of_group, set_rates, take_in
from minidl.optim.lr_schedules import Schedule
from minidl.optim.optimizer import Optimizer, check_state
from minidl.optim.plateau import ReduceLROnPlateau


class LRScheduler:
    """Multiplies the learning rate of each group by `schedule(step)`: PyTorch's LambdaLR.

    What other schedulers of the optimizer do stays, also where PyTorch's would overwrite it: before another course is
    begun, `optimizer.schedulers.clear()`.

    schedule: for all groups, or a list with one for each, which refuses groups that are added later. base_lrs: the
    groups' rates without schedulers. last_epoch: the step whose rates are set.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule | Sequence[Schedule]):
        check_optimizer(optimizer)
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
        return rate * of_group(self.schedule, group)(step)

    def check_groups(self, groups: int) -> None:
        """ValueError unless the scheduler can serve so many groups."""
        check_each("schedules", self.schedule, groups)

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
        """{"last_epoch": step, "base_lrs": [of each group], "by_hand": [the factor, see `learning_rates`]}."""
        take_in(self.optimizer)
        by_hand = [group["by_hand"] for group in self.optimizer.param_groups]
        return {"last_epoch": self.last_epoch, "base_lrs": self.base_lrs, "by_hand": by_hand}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave, and set its rates. ValueError if it is none, or for other groups.

        The optimizer's state may be loaded before or after.
        """
        check_state("scheduler", saved, {"last_epoch": int, "base_lrs": list, "by_hand": list})
        groups, bases, factors = self.optimizer.param_groups, saved["base_lrs"], saved["by_hand"]
        if not len(groups) == len(bases) == len(factors):
            raise ValueError(f"the saved scheduler has {len(bases)} parameter groups, the optimizer {len(groups)}")
        take_in(self.optimizer)
        for group, base, by_hand in zip(groups, bases, factors, strict=True):
            group["initial_lr"] = base
            if by_hand != group["by_hand"]:
                group.update(by_hand=by_hand, lr=by_hand * group["scheduled_lr"])
        self.last_epoch = saved["last_epoch"]
        set_rates(self.optimizer, self.optimizer.schedulers)

    def _others(self) -> list:
        """The schedulers of the optimizer beside this one, when it is made."""
        return self.optimizer.schedulers


class StepLR(LRScheduler):
    """Times gamma after every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        super().__init__(optimizer, lr_schedules.step_decay(step_size, gamma))


class MultiStepLR(LRScheduler):
    """Times gamma at each of the steps `milestones`."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        super().__init__(optimizer, lr_schedules.multi_step(milestones, gamma))


class ExponentialLR(LRScheduler):
    """Times gamma after every step."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        super().__init__(optimizer, lr_schedules.exponential(gamma))


class LinearLR(LRScheduler):
    """From start_factor in a straight line to end_factor after total_iters steps: a warm-up."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ):
        super().__init__(optimizer, lr_schedules.linear(start_factor, end_factor, total_iters))


class PolynomialLR(LRScheduler):
    """(1 - step / total_iters)^power."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        super().__init__(optimizer, lr_schedules.polynomial(total_iters, power))


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
        super().__init__(optimizer, lr_schedules.cosine(T_max), eta_min)


class CosineAnnealingWarmRestarts(_Cosine):
    """Cosines down to the rate eta_min: over T_0 steps, then over T_mult as many, and so on."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        super().__init__(optimizer, lr_schedules.cosine_restarts(T_0, T_mult), eta_min)


class OneCycleLR(LRScheduler):
    """Up to the rate max_lr (of all groups, or a list) and down to almost nothing in total_steps.

    total_steps: or epochs times steps_per_epoch. The cycle begins at max_lr / div_factor, which becomes the base rate
    of the groups: it takes the place of the schedulers made before it and of rates set by hand, as in PyTorch; those
    made later multiply it. A group that is added later goes from its own rate. Only the learning rate goes in a cycle,
    not the momentum, as PyTorch has it with cycle_momentum=False.
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
        check_optimizer(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        cycle = lr_schedules.one_cycle(total_steps, pct_start, div_factor, final_div_factor, anneal_strategy)
        check_each("rates max_lr", max_lr, len(optimizer.param_groups))
        first = [of_group(max_lr, i) / div_factor for i in range(len(optimizer.param_groups))]
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group.update(initial_lr=rate, scheduled_lr=rate, by_hand=1.0, lr=rate)
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
        self._place = lr_schedules.sequence([lambda step, part=part: (part, step) for part in self._parts], milestones)
        super().__init__(optimizer, lr_schedules.constant())

    def scheduled(self, rate, group, step):
        part, own_step = self._place(step)
        return part.scheduled(rate, group, own_step)

    def check_groups(self, groups):
        for part in self._parts:
            part.check_groups(groups)

    def _others(self):
        return [scheduler for scheduler in self.optimizer.schedulers if scheduler not in self._parts]
