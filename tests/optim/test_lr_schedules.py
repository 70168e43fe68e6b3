"""Schedules follow PyTorch's to the last digits, and can be resumed."""

import math

import numpy as np
import pytest
from optim_cases import parameter

import minidl
from minidl import optim
from minidl.optim import lr_scheduler, lr_schedules

STEPS = 120
SCHEDULERS = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 30, 30, 80], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.97}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 40}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.2, "total_iters": 100}),
    ("PolynomialLR", {"total_iters": 90, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 100, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 30}),
    ("CosineAnnealingWarmRestarts", {"T_0": 10, "T_mult": 2, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 25}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": STEPS + 1}),
    ("OneCycleLR", {"max_lr": [0.5, 0.1], "epochs": 11, "steps_per_epoch": 11, "pct_start": 0.1, "div_factor": 3.0}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": STEPS + 1, "anneal_strategy": "linear", "final_div_factor": 10.0}),
]


def two_groups(lr=0.2):
    first, second = (parameter(np.ones(3)) for _ in range(2))
    return optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 4}], lr=lr)


def their_two_groups(lr=0.2):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 4}], lr=lr)


def assert_same_rates(ours, theirs, optimizer, other, feed=None):
    for step in range(STEPS):
        rates, expected = ([group["lr"] for group in o.param_groups] for o in (optimizer, other))
        assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15), step
        assert ours.get_last_lr() == rates
        other.step()
        for scheduler in (ours, theirs):
            scheduler.step(*(() if feed is None else (feed[step],)))


@pytest.mark.parametrize(("name", "options"), SCHEDULERS, ids=[f"{name} {options}" for name, options in SCHEDULERS])
def test_a_scheduler_gives_every_group_the_rates_of_pytorch(name, options):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    optimizer, other = two_groups(), their_two_groups()
    ours = getattr(lr_scheduler, name)(optimizer, **options)
    only = {"cycle_momentum": False} if name == "OneCycleLR" else {}
    theirs = getattr(torch.optim.lr_scheduler, name)(other, **options, **only)
    assert_same_rates(ours, theirs, optimizer, other)


def test_schedulers_one_after_the_other_give_the_rates_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

    def chain(module, optimizer):
        parts = [
            module.LinearLR(optimizer, 0.01, 1.0, 10),
            module.CosineAnnealingLR(optimizer, 50, 0.02),
            module.ExponentialLR(optimizer, 0.9),
        ]
        return module.SequentialLR(optimizer, parts, [10, 60])

    optimizer, other = two_groups(), their_two_groups()
    assert_same_rates(chain(lr_scheduler, optimizer), chain(torch.optim.lr_scheduler, other), optimizer, other)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 3, "factor": 0.5},
        {"patience": 0, "cooldown": 4, "min_lr": [0.01, 0.02]},
        {"mode": "max", "patience": 2, "threshold": 0.05, "factor": 0.7},
        {"patience": 1, "threshold": 0.3, "threshold_mode": "abs", "factor": 0.9},
    ],
    ids=str,
)
def test_a_plateau_lowers_the_rates_as_pytorch_does(options):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    metrics = np.random.default_rng(0).standard_normal(STEPS).cumsum() * 0.2 + 3
    metrics[40] = math.nan
    optimizer, other = two_groups(), their_two_groups()
    ours = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    assert_same_rates(ours, theirs, optimizer, other, metrics)
    assert optimizer.param_groups[0]["lr"] < 0.2


def test_training_resumed_from_saved_state_goes_on_with_the_same_rates():
    def made():
        optimizer = two_groups()
        return optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 50), lr_scheduler.ReduceLROnPlateau(optimizer)

    optimizer, cosine, plateau = made()
    for step in range(20):
        cosine.step()
        plateau.step(1.0 + (step > 5))
    again = made()
    for one, saved in zip(again, [x.state_dict() for x in (optimizer, cosine, plateau)], strict=True):
        one.load_state_dict(saved)
    for _ in range(15):
        cosine.step()
        again[1].step()
        assert [g["lr"] for g in again[0].param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert again[2].state_dict() == plateau.state_dict()
    # A scheduler made anew on the saved optimizer begins from its base rates, which the plateau has reduced.
    fresh = two_groups(lr=7.0)
    fresh.load_state_dict(optimizer.state_dict())
    assert lr_scheduler.ExponentialLR(fresh, 0.9).get_last_lr() == pytest.approx([0.02, 0.005])


def test_the_schedules_follow_their_curves():
    decay = lr_schedules.step_decay(10, 0.5)
    assert [decay(s) for s in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    curve = lr_schedules.warmup_cosine(10, 110, final=0.1)
    assert curve(0) == pytest.approx(0.1) and curve(9) == curve(10) == 1
    assert curve(60) == pytest.approx(0.55) and curve(110) == curve(1000) == pytest.approx(0.1)
    assert lr_schedules.constant()(7) == 1
    rise = lr_schedules.linear_warmup(4, lr_schedules.exponential(0.5))
    assert [rise(s) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 0.5]
    parts = lr_schedules.sequence(
        [lr_schedules.constant(), lr_schedules.polynomial(4), lr_schedules.linear(2, 3, 2)], [2, 5]
    )
    assert [parts(s) for s in range(8)] == [1, 1, 1, 0.75, 0.5, 2, 2.5, 3]


def test_schedules_that_cannot_be_are_refused():
    optimizer = two_groups()
    for make, message in [
        (lambda: lr_schedules.warmup_cosine(5, 5), "warmup=5"),
        (lambda: lr_schedules.step_decay(0), "every=0"),
        (lambda: lr_schedules.one_cycle(5, anneal="exp"), "unknown anneal 'exp'"),
        (lambda: lr_schedules.sequence([lr_schedules.constant()], [3]), "1 schedules need 0 rising milestones"),
        (lambda: lr_scheduler.OneCycleLR(optimizer, 0.1), "needs total_steps, or epochs"),
        (lambda: lr_scheduler.OneCycleLR(optimizer, [0.1], 5), "1 rates max_lr do not fit 2 parameter groups"),
        (lambda: lr_scheduler.LRScheduler(optimizer, [lr_schedules.constant()]), "1 schedules do not fit 2"),
        (lambda: lr_scheduler.ReduceLROnPlateau(optimizer, "least"), "unknown mode 'least'"),
        (
            lambda: lr_scheduler.SequentialLR(optimizer, [lr_scheduler.StepLR(two_groups(), 3)], []),
            "schedulers of the optimizer that it is given",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="needs an Optimizer, not a Tensor"):
        lr_scheduler.StepLR(minidl.ones(3), 3)
