"""Several schedulers on one optimizer multiply, and go on from rates set by hand, groups added later, saved states."""

import copy
import itertools
import warnings

import numpy as np
import pytest
from optim_cases import CASES, parameter

from minidl import optim
from minidl.optim import lr_scheduler

STEPS = 14
METRICS = [3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 0.5, 0.6, 0.6]

# Those of which PyTorch has a recursive form: there they multiply, too.
RECURSIVE = {
    "StepLR": lambda m, o: m.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 5, 5], 0.4),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.1, 1.0, 6),
    "LinearLR to 0": lambda m, o: m.LinearLR(o, 1.0, 0.0, 9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 12, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, STEPS),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1, factor=0.5),
}
# Those that overwrite in PyTorch what another one did.
ABSOLUTE = {
    "LambdaLR": lambda m, o: getattr(m, "LambdaLR", m.LRScheduler)(o, lambda step: 1 / (1 + step)),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 4),
    "OneCycleLR": lambda m, o: one_cycle(m, o, max_lr=0.6, total_steps=STEPS + 1),
    "SequentialLR": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.2, 1.0, 3), m.ExponentialLR(o, 0.8)], [4]),
}
ALL = RECURSIVE | ABSOLUTE


def one_cycle(module, optimizer, **options):
    return module.OneCycleLR(optimizer, **options, **({} if module is lr_scheduler else {"cycle_momentum": False}))


def made(lr=0.2):
    first, second = (parameter(np.ones(3)) for _ in range(2))
    return optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 4}], lr=lr)


def theirs(lr=0.2):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    return torch.optim.lr_scheduler, torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 4}], lr=lr)


def advance(scheduler, step):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of an optimizer that makes no step
        scheduler.step(*([METRICS[step]] if type(scheduler).__name__ == "ReduceLROnPlateau" else []))


def rates_of(optimizer, schedulers, steps=STEPS):
    """The rates of all groups over the steps: (steps + 1, groups)."""
    found = [[group["lr"] for group in optimizer.param_groups]]
    for step in range(steps):
        for scheduler in schedulers:
            advance(scheduler, step)
        found.append([group["lr"] for group in optimizer.param_groups])
    return np.array(found)


def ours_alone(name):
    optimizer = made()
    return rates_of(optimizer, [ALL[name](lr_scheduler, optimizer)])


def theirs_alone(name):
    module, optimizer = theirs()
    return rates_of(optimizer, [ALL[name](module, optimizer)])


@pytest.mark.parametrize("pair", list(itertools.product(RECURSIVE, repeat=2)), ids=" and ".join)
def test_two_schedulers_give_the_rates_of_pytorch(pair):
    module, other = theirs()
    expected = rates_of(other, [RECURSIVE[name](module, other) for name in pair])
    optimizer = made()
    schedulers = [RECURSIVE[name](lr_scheduler, optimizer) for name in pair]
    np.testing.assert_allclose(rates_of(optimizer, schedulers), expected, rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("name", ABSOLUTE)
def test_a_scheduler_that_overwrites_others_in_pytorch_multiplies_with_each_of_them_here(name):
    alone = theirs_alone(name)
    np.testing.assert_allclose(ours_alone(name), alone, rtol=1e-9)
    for other, first in itertools.product(ALL, (True, False)):
        optimizer = made()
        pair = (name, other) if first else (other, name)
        schedulers = [ALL[one](lr_scheduler, optimizer) for one in pair]
        # A cycle's base rate is its first one, whatever the optimizer had.
        cycles = [one for one in pair if one == "OneCycleLR"]
        base = [0.6 / 25] * 2 if cycles else [0.2, 0.05]
        factors = [theirs_alone(one) / ([0.6 / 25] * 2 if one == "OneCycleLR" else [0.2, 0.05]) for one in pair]
        if pair[1] == "OneCycleLR" and pair[0] != "ReduceLROnPlateau":  # it begins anew
            factors[0] = np.ones_like(factors[0])
        expected = factors[0] * factors[1] * base
        np.testing.assert_allclose(rates_of(optimizer, schedulers), expected, rtol=1e-9, atol=1e-16, err_msg=str(pair))


def test_a_cosine_goes_to_its_eta_min_from_the_rate_that_earlier_schedulers_leave_and_later_ones_multiply_it():
    def rates(*makes):
        optimizer = made()
        return rates_of(optimizer, [make(lr_scheduler, optimizer) for make in makes])

    def cosine(module, optimizer):
        return module.CosineAnnealingLR(optimizer, STEPS, 0.01)

    share = (1 + np.cos(np.pi * np.arange(STEPS + 1) / STEPS))[:, None] / 2
    halved = theirs_alone("StepLR")
    np.testing.assert_allclose(rates(RECURSIVE["StepLR"], cosine), 0.01 + (halved - 0.01) * share, rtol=1e-9)
    alone = 0.01 + (np.array([0.2, 0.05]) - 0.01) * share
    np.testing.assert_allclose(rates(cosine, RECURSIVE["StepLR"]), alone * halved / [0.2, 0.05], rtol=1e-9)


def test_another_course_begins_anew():
    optimizer = made()
    rates_of(optimizer, [lr_scheduler.CosineAnnealingLR(optimizer, STEPS)])
    assert optimizer.lr == 0
    second = [lr_scheduler.OneCycleLR(optimizer, 0.6, STEPS + 1)]
    np.testing.assert_allclose(rates_of(optimizer, second), theirs_alone("OneCycleLR"), rtol=1e-9)
    optimizer = made()
    lr_scheduler.LinearLR(optimizer, 0.0)
    optimizer.schedulers.clear()
    again = rates_of(optimizer, [lr_scheduler.StepLR(optimizer, 3, 0.5)])
    np.testing.assert_allclose(again, theirs_alone("StepLR"), rtol=1e-9)


def test_a_cycle_has_the_rates_of_pytorch_whatever_was_set_by_hand_before_it():
    (module, other), optimizer = theirs(), made()
    found = []
    for one, m in ((optimizer, lr_scheduler), (other, module)):
        advance(m.ExponentialLR(one, 1.0), 0)
        one.param_groups[0]["lr"] = 0.4
        found.append(rates_of(one, [one_cycle(m, one, max_lr=2.5, total_steps=STEPS + 1)]))
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_rates_below_eta_min_stay_above_0():
    optimizer = made()
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 5, 0.01)
    for step in range(20):
        if step in (4, 5, 6):
            optimizer.lr = 1e-5
        cosine.step()
        assert all(0 < group["lr"] <= 0.2 for group in optimizer.param_groups), step


@pytest.mark.parametrize("name", RECURSIVE)
def test_a_rate_set_by_hand_is_the_one_from_which_a_scheduler_goes_on_as_in_pytorch(name):
    (module, other), optimizer = theirs(), made()
    both = [(optimizer, RECURSIVE[name](lr_scheduler, optimizer)), (other, RECURSIVE[name](module, other))]
    for step in range(STEPS):
        for one, scheduler in both:
            if step == 4:
                one.param_groups[0]["lr"] = 0.07
            advance(scheduler, step)
        rates, expected = ([group["lr"] for group in one.param_groups] for one, _ in both)
        assert rates == pytest.approx(expected, rel=1e-9, abs=1e-16), step


def test_a_rate_set_by_hand_stays_to_the_last_bit_while_the_schedule_changes_nothing():
    optimizer = made()
    scheduler, at_zero = lr_scheduler.StepLR(optimizer, 1000), lr_scheduler.StepLR(optimizer, 3, 0.0)
    for rate in (0.07, 1e-5, 0.3):
        optimizer.lr = rate
        scheduler.step()
        assert optimizer.lr == rate
    for _ in range(3):
        at_zero.step()
    assert optimizer.lr == 0
    optimizer.lr = 0.07  # which no base rate gives now
    scheduler.step()
    assert optimizer.lr == 0.07


@pytest.mark.parametrize("name", ALL)
def test_a_group_that_is_added_later_is_scheduled_from_its_own_rate(name):
    optimizer = made()
    scheduler = ALL[name](lr_scheduler, optimizer)
    before = rates_of(optimizer, [scheduler], 3)
    optimizer.add_param_group({"params": [parameter(np.ones(2))], "lr": 0.5})
    assert len(scheduler.state_dict().get("base_lrs", "abc")) == 3
    rates = rates_of(optimizer, [scheduler], 8)
    factors = rates[:, :1] / before[-1, :1]  # the same metrics anew
    np.testing.assert_allclose(rates, [*before[-1], 0.5] * factors, rtol=1e-9)
    assert rates[:, 0].min() < rates[0, 0] or rates[:, 0].max() > rates[0, 0]


@pytest.mark.parametrize("name", ["StepLR", "LinearLR", "PolynomialLR", "CosineAnnealingLR", "ReduceLROnPlateau"])
def test_a_group_that_is_added_later_gets_the_rates_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    (module, other), optimizer = theirs(), made()
    both = [(optimizer, RECURSIVE[name](lr_scheduler, optimizer)), (other, RECURSIVE[name](module, other))]
    found = []
    for (one, scheduler), late in zip(both, (parameter(np.ones(2)), torch.nn.Parameter(torch.ones(2))), strict=True):
        rates_of(one, [scheduler], 4)
        one.add_param_group({"params": [late], "lr": 0.5})
        found.append(rates_of(one, [scheduler], 7))
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize(("cls", "options"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_every_optimizer_takes_a_group_under_a_scheduler(cls, options):
    optimizer = cls([parameter(np.ones(3))], **options)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.add_param_group({"params": [parameter(np.ones(2))], "lr": 0.25})
    scheduler.step()
    for p in optimizer.parameters:
        p.grad = p.detach()
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [optimizer.defaults["lr"] / 2, 0.125]
    assert all((p.numpy() != 1).all() for p in optimizer.parameters)


def test_a_group_for_which_a_scheduler_has_no_option_is_refused_before_anything_is_changed():
    for make, message in (
        (lambda o: lr_scheduler.LRScheduler(o, [lambda s: 1.0, lambda s: 0.5]), "2 schedules do not fit 3"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, min_lr=[0.1, 0.2]), "2 rates min_lr do not fit 3"),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.LRScheduler(o, [lambda s: 1.0] * 2)], []),
            "2 schedules do not fit 3",
        ),
    ):
        optimizer = made()
        scheduler = make(optimizer)
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group({"params": [parameter(np.ones(2))]})
        assert len(optimizer.param_groups) == len(optimizer.state) == 2
        advance(scheduler, 0)


def test_a_schedule_that_fails_changes_no_rate():
    optimizer = made()
    decay = lr_scheduler.ExponentialLR(optimizer, 0.5)
    listed = lr_scheduler.LRScheduler(optimizer, [lambda step: 1.0, lambda step: [1.0, 0.5][step]])
    listed.step()
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(IndexError):
        listed.step()
    with pytest.raises(ZeroDivisionError):
        lr_scheduler.LRScheduler(optimizer, lambda step: 1 / step)
    assert optimizer.state_dict()["param_groups"] == before and listed.last_epoch == 1
    decay.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0125]


@pytest.mark.parametrize("pair", [*itertools.combinations(ALL, 2), ("StepLR",), ("OneCycleLR",)], ids=" and ".join)
@pytest.mark.parametrize("by_hand", [False, True], ids=["", "by hand"])
@pytest.mark.parametrize("loaded", ["before", "between", "after"])
def test_saved_states_of_schedulers_go_on_with_exactly_the_same_rates(pair, loaded, by_hand):
    def schedulers_of(optimizer):
        return [ALL[name](lr_scheduler, optimizer) for name in pair]

    optimizer = made()
    schedulers = schedulers_of(optimizer)
    rates_of(optimizer, schedulers, 5)
    if by_hand:
        optimizer.param_groups[1]["lr"] = 0.07
    states = [scheduler.state_dict() for scheduler in schedulers]
    state = copy.deepcopy(optimizer.state_dict())

    again = made(lr=7.0)
    if loaded == "before":
        again.load_state_dict(state)
    resumed = schedulers_of(again)
    if loaded == "between":
        again.load_state_dict(state)
    for scheduler, saved in zip(resumed, states, strict=True):
        scheduler.load_state_dict(saved)
    if loaded == "after":
        again.load_state_dict(state)
    rates, expected = (rates_of(o, s, 8) for o, s in ((again, resumed), (optimizer, schedulers)))
    np.testing.assert_allclose(rates, expected, rtol=1e-14 if by_hand else 0)


STATE = {"last_epoch": 3, "base_lrs": [0.1, 0.2], "by_hand": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("make", "saved", "message"),
    [
        (ALL["StepLR"], STATE | {"base_lrs": [0.1]}, "has 1 parameter groups, the optimizer 2"),
        (ALL["StepLR"], {"last_epoch": 3}, "this is no scheduler's state: it has no 'base_lrs' that is of type list"),
        (ALL["StepLR"], STATE | {"last_epoch": "3"}, "it has no 'last_epoch' that is of type int"),
        (ALL["StepLR"], [3], "this is no scheduler's state: it is a list, and no dict"),
        (ALL["ReduceLROnPlateau"], STATE, "this is no ReduceLROnPlateau's state: it has no 'best'"),
    ],
)
def test_a_state_that_does_not_fit_a_scheduler_is_refused(make, saved, message):
    optimizer = made()
    scheduler = make(lr_scheduler, optimizer)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(saved)
    assert scheduler.state_dict() == before and [group["lr"] for group in optimizer.param_groups] == [0.2, 0.05]
