"""The exponential moving average: its formula, its use in place of the parameters, its state."""

import numpy as np
import pytest
from optim_cases import parameter

import minidl
from minidl import nn, optim


def moved(p, values, average):
    for value in values:
        p.set_whole(np.array(value))
        average.update()


def test_the_average_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    steps = np.random.default_rng(0).standard_normal((100, 4, 3))
    mine, other = parameter(steps[0]), torch.nn.Linear(3, 4, bias=False).double()
    other.weight.data = torch.tensor(steps[0])
    average = optim.ExponentialMovingAverage([mine], decay=0.9)
    theirs = torch.optim.swa_utils.AveragedModel(other, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(other)  # its first update copies
    for values in steps[1:]:
        mine.set_whole(values)
        average.update()
        other.weight.data = torch.tensor(values)
        theirs.update_parameters(other)
    np.testing.assert_allclose(average.averages["0"], theirs.module.weight.detach().numpy(), rtol=1e-12)


def test_with_a_warm_up_the_start_is_soon_forgotten():
    p = parameter(np.array([100.0]))
    slow, warm = (optim.ExponentialMovingAverage([p], 0.999, warmup=warmup) for warmup in (False, True))
    expected = 100.0
    for t in range(1, 51):
        p.set_whole(np.array([1.0 / t]))
        slow.update()
        warm.update()
        decay = (1 + t) / (10 + t)
        expected = decay * expected + (1 - decay) / t
    assert warm.averages["0"][0] == pytest.approx(expected)
    assert slow.averages["0"][0] > 90 and warm.averages["0"][0] < 0.1


def test_inside_the_block_the_parameters_are_the_averages_and_after_it_themselves_again_even_after_an_error():
    model = nn.Linear(3, 2)
    x = minidl.ones(1, 3)
    average = optim.ExponentialMovingAverage(model, decay=0.5)
    first = model(x).numpy()
    model.weight.set_whole(model.weight.numpy() + 4.0)
    average.update()
    now = model(x).numpy()
    array = model.weight.data
    with pytest.raises(KeyError), average.applied():
        np.testing.assert_allclose(model(x).numpy(), (first + now) / 2, rtol=1e-5)
        assert model.weight.data is array
        raise KeyError
    np.testing.assert_array_equal(model(x).numpy(), now)
    assert average.state_dict()["averages"].keys() == {"weight", "bias"}


def test_a_backward_through_parameters_that_were_exchanged_is_refused():
    model = nn.Linear(3, 2)
    average = optim.ExponentialMovingAverage(model)
    x = minidl.ones(1, 3).requires_grad_()
    with average.applied():
        y = model(x).sum()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_an_average_goes_on_from_its_saved_state():
    values = np.random.default_rng(0).standard_normal((30, 4))
    p, q = parameter(values[0]), parameter(values[0] * 0)
    one, other = (optim.ExponentialMovingAverage([x], 0.9, warmup=True) for x in (p, q))
    moved(p, values[:20], one)
    other.load_state_dict(one.state_dict())
    assert other.averages["0"] is not one.averages["0"]
    moved(p, values[20:], one)
    moved(q, values[20:], other)
    np.testing.assert_array_equal(one.averages["0"], other.averages["0"])
    with pytest.raises(ValueError, match="the saved averages are"):
        optim.ExponentialMovingAverage([parameter(np.ones(5))]).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="this is no average's state: it has no 'updates'"):
        one.load_state_dict(one.averages)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="decay=1.5"):
        optim.ExponentialMovingAverage([parameter(np.ones(2))], 1.5)
    with pytest.raises(ValueError, match="no parameters"):
        optim.ExponentialMovingAverage(nn.ReLU())
