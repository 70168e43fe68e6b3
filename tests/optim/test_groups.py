"""Groups of parameters: each with options of its own, which can be set, saved and scheduled."""

import copy

import numpy as np
import pytest
from optim_cases import parameter

import minidl
from minidl import nn, optim


def ones(n=3):
    return parameter(np.ones(n))


def test_groups_take_the_steps_of_pytorch_each_with_its_own_options():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    generator = np.random.default_rng(0)
    starts = generator.standard_normal((3, 5))
    ours = [parameter(start) for start in starts]
    theirs = [torch.nn.Parameter(torch.tensor(start)) for start in starts]

    def grouped(cls, parameters):
        groups = [{"params": parameters[0], "lr": 0.1}, {"params": iter(parameters[1:2]), "weight_decay": 0.0}]
        optimizer = cls(groups, lr=0.01, betas=(0.8, 0.9))
        optimizer.add_param_group({"params": parameters[2:], "betas": (0.5, 0.6)})
        return optimizer

    optimizer, other = grouped(optim.AdamW, ours), grouped(torch.optim.AdamW, theirs)
    for step in range(20):
        for p, q in zip(ours, theirs, strict=True):
            gradient = generator.standard_normal(5)
            p.grad, q.grad = minidl.tensor(gradient), torch.tensor(gradient)
        for one in (optimizer, other):
            one.step()
            one.param_groups[1]["lr"] = 0.01 * 0.9**step
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-12)
    for mine, expected in zip(optimizer.param_groups, other.param_groups, strict=True):
        assert all(mine[name] == expected[name] for name in ("lr", "betas", "eps", "weight_decay", "maximize"))
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 1, 1] and optimizer.parameters == ours


def test_the_learning_rate_of_all_groups_can_be_read_if_it_is_one_and_set():
    optimizer = optim.SGD([{"params": ones()}, {"params": ones(), "lr": 0.2}], lr=0.1)
    with pytest.raises(ValueError, match=r"learning rates \[0.1, 0.2\]: see param_groups"):
        optimizer.lr  # noqa: B018
    optimizer.lr = 0.3
    assert optimizer.lr == 0.3 and [g["lr"] for g in optimizer.param_groups] == [0.3, 0.3]


def test_the_state_is_saved_with_its_groups_and_loaded_by_name():
    def made(lr):
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
        model.materialize(seed=0)
        groups = [{"params": model[0].parameters(), "lr": lr}, {"params": [model[2].weight], "momentum": 0.5}]
        return model, optim.SGD(groups, lr=0.1, momentum=0.9)

    model, optimizer = made(0.2)
    for p in optimizer.parameters:
        p.grad = minidl.ones(*p.shape)
    optimizer.step()
    saved = optimizer.state_dict()
    assert [g["params"] for g in saved["param_groups"]] == [["0.weight", "0.bias"], ["2.weight"]]
    assert list(saved["state"]) == ["0.weight", "0.bias", "2.weight"]
    _, again = made(7.0)
    again.load_state_dict(saved)
    assert [(g["lr"], g["momentum"]) for g in again.param_groups] == [(0.2, 0.9), (0.1, 0.5)]
    for p, q in zip(optimizer.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(optimizer.state[p]["momentum"], again.state[q]["momentum"])
        assert optimizer.state[p]["momentum"] is not again.state[q]["momentum"]

    other = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="has the parameter groups"):
        other.load_state_dict(saved)


@pytest.mark.parametrize("make", [optim.Adam, optim.LAMB])
def test_a_training_goes_on_from_the_states_of_a_model_that_had_no_names_and_of_its_optimizer(make):
    def trained(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (model(minidl.ones(1, 3)) ** 2).sum().backward()
            optimizer.step()

    minidl.manual_seed(0)
    model, again = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = make(model.parameters(), lr=0.1)
    trained(model, optimizer, 3)
    again.load_state_dict(model.state_dict())  # which gives its parameters their names
    continued = make(again.parameters(), lr=0.1)
    continued.load_state_dict(optimizer.state_dict())
    trained(model, optimizer, 3)
    trained(again, continued, 3)
    np.testing.assert_array_equal(again.weight.numpy(), model.weight.numpy())
    make(model.parameters()).load_state_dict(continued.state_dict())
    with pytest.raises(ValueError, match="has the parameter groups"):
        make([model.weight]).load_state_dict(continued.state_dict())


def damaged(saved, **of_the_first):
    return {**saved, "state": {**saved["state"], "0": of_the_first}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: {}, "this is no optimizer's state: it has no 'state' that is of type dict"),
        (lambda saved: [saved], "this is no optimizer's state: it is a list, and no dict"),
        (lambda saved: {**saved, "param_groups": [0]}, "no parameter group's state: it is a int"),
        (lambda saved: {**saved, "state": {"0": {}}}, "the optimizer state has nothing of the parameter 1"),
        (lambda saved: damaged(saved, momentum=np.ones(2)), "momentum of 0 has 2 elements, the parameter 3"),
        (lambda saved: damaged(saved, momentum=None), "momentum of 0 is a NoneType, and no number or array"),
        (
            lambda saved: optim.Adam([ones(), ones()]).state_dict(),
            "this state is no SGD's: its options are amsgrad, betas, eps, lr, maximize, weight_decay, not dampening, ",
        ),
        (lambda saved: optim.SGD([ones()]).state_dict(), "has the parameter groups"),
    ],
)
def test_a_state_that_does_not_fit_an_optimizer_is_refused_before_anything_is_changed(change, message):
    optimizer = optim.SGD([ones(), ones()], lr=0.1, momentum=0.9)
    for p in optimizer.parameters:
        p.grad = minidl.ones(3, dtype="float64")
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(
            change({**copy.deepcopy(before), "param_groups": [{**before["param_groups"][0], "lr": 7.0}]})
        )
    assert repr(optimizer.state_dict()) == repr(before)


def test_parameters_without_names_or_with_the_same_are_saved_by_number():
    twins = [nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)]
    for twin in twins:
        twin.materialize(seed=0)
    optimizer = optim.SGD([twin.weight for twin in twins])
    assert list(optimizer.state_dict()["state"]) == ["0", "1"]


def test_groups_that_cannot_be_are_refused():
    p, q = ones(), ones()
    for make, error, message in [
        (
            lambda: optim.SGD([{"params": p}, {"params": [q, p]}]),
            ValueError,
            "parameter 1 of parameter group 1",
        ),
        (lambda: optim.SGD([p, p]), ValueError, "given twice"),
        (
            lambda: optim.SGD([{"params": p, "rate": 1}]),
            ValueError,
            "unknown option rate: the options of SGD are",
        ),
        (lambda: optim.Adam([{"params": p}, {"params": q, "betas": (1.0, 0.9)}]), ValueError, "betas"),
        (lambda: optim.SGD([{"lr": 0.1}]), TypeError, "group 0 must be a dict with 'params'"),
        (lambda: optim.SGD([{"params": p}, q]), TypeError, "group 1 must be a dict with 'params'"),
        (lambda: optim.SGD([p, {"params": q}]), TypeError, "number 1 is a dict"),
        (lambda: optim.SGD([{"params": p}]).add_param_group({"params": [p]}), ValueError, "given twice"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_a_gradient_of_another_shape_is_refused():
    p = ones()
    p.grad = minidl.ones(1, dtype="float64")
    with pytest.raises(ValueError, match=r"parameter 0 has shape \(3,\), its gradient \(1,\)"):
        optim.SGD([p], lr=0.1).step()


def test_a_group_may_be_empty():
    optimizer = optim.LAMB([{"params": []}, {"params": ones()}])
    optimizer.parameters[0].grad = minidl.ones(3, dtype="float64")
    optimizer.step()
    assert (optimizer.parameters[0].numpy() < 1).all()
