"""Optimizer updates on the device cuda against those of NumPy."""

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.kernels import cpu, for_device

cuda = for_device("cuda")


# name -> how many arrays it has for its state, and it called on kernels k with them
UPDATES = {
    "sgd": (0, lambda k, p, g: k.sgd_update(p, g, None, 0.1, 0.0, 0.0, 0.01, False, 0.5)),
    "momentum": (1, lambda k, p, g, v: k.sgd_update(p, g, v, 0.1, 0.9, 0.2, 0.01, False, 0.5)),
    "nesterov": (1, lambda k, p, g, v: k.sgd_update(p, g, v, 0.1, 0.9, 0.0, 0.0, True, 0.5)),
    "adam": (2, lambda k, p, g, m, v: k.adam_update(
        p, g, m, v, None, 0.9, 0.99, 1e-6, 0.12, 0.0, 1.1, 0.01, 1.0, 0.5)),
    "decoupled": (2, lambda k, p, g, m, v: k.adam_update(
        p, g, m, v, None, 0.9, 0.99, 1e-6, 0.12, 0.3, 1.1, 0.0, 0.99, 0.5)),
    "amsgrad": (3, lambda k, p, g, m, v, u: k.adam_update(
        p, g, m, v, u, 0.9, 0.99, 1e-6, 0.12, 0.0, 1.1, 0.01, 1.0, 0.5)),
    "lamb": (2, lambda k, p, g, m, v: k.lamb_moments_update(p, g, m, v, 0.9, 0.99, 1e-6, 1.2, 1.1, 0.01, 0.5)),
    "adagrad": (1, lambda k, p, g, v: k.adagrad_update(p, g, v, 0.1, 1e-8, 0.01, 0.5)),
    "adadelta": (2, lambda k, p, g, v, u: k.adadelta_update(p, g, v, u, 0.5, 0.9, 1e-6, 0.01, 0.5)),
    "rmsprop": (1, lambda k, p, g, v: k.rmsprop_update(p, g, v, None, None, 0.1, 0.9, 1e-6, 0.0, 0.01, 0.5)),
    "centered": (2, lambda k, p, g, v, m: k.rmsprop_update(p, g, v, m, None, 0.1, 0.9, 1e-6, 0.0, 0.01, 0.5)),
    "rmsprop, momentum": (2, lambda k, p, g, v, u: k.rmsprop_update(
        p, g, v, None, u, 0.1, 0.9, 1e-6, 0.8, 0.01, 0.5)),
    "centered, momentum": (3, lambda k, p, g, v, m, u: k.rmsprop_update(
        p, g, v, m, u, 0.1, 0.9, 1e-6, 0.8, 0.01, 0.5)),
    "lion": (1, lambda k, p, g, m: k.lion_update(p, g, m, 0.1, 0.9, 0.99, 0.01, 0.5)),
}  # fmt: skip


def arrays(name, size, dtype):
    """Parameter, gradient and state; squares are positive, and more than those of means."""
    rng = np.random.default_rng(0)
    count = UPDATES[name][0]
    p, g, *state = (rng.standard_normal(size).astype(dtype) for _ in range(2 + count))
    if name not in ("sgd", "momentum", "nesterov", "lion"):
        squares = {"adam": [1], "decoupled": [1], "lamb": [1], "amsgrad": [1, 2], "adadelta": [0, 1]}.get(name, [0])
        for i in squares:
            state[i] = state[i] ** 2 + (9 if "centered" in name else 0)
    return p, g, *state


def both(name, given):
    """What an update gives and leaves on NumPy and on cuda."""
    expected = [x.copy() for x in given]
    of_cpu = UPDATES[name][1](cpu, *expected)
    found = [cuda.array(x, x.dtype) for x in given]
    of_cuda = UPDATES[name][1](cuda, *found)
    return of_cpu, expected, of_cuda, [cuda.to_numpy(x) for x in found]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_are_those_of_numpy(name, dtype, thread_order):
    of_cpu, expected, of_cuda, found = both(name, arrays(name, 301, dtype))
    rtol = 2e-6 if dtype is np.float32 else 1e-14
    for x, y in zip(expected, found, strict=True):
        assert y.dtype == dtype
        np.testing.assert_allclose(y, x, rtol, rtol)
    if name == "lamb":
        assert type(of_cuda) is float and of_cuda == pytest.approx(of_cpu, rel=rtol)
    else:
        assert of_cuda is None


@pytest.mark.parametrize("name", UPDATES)
def test_none_and_one_element(name):
    for size in (0, 1):
        of_cpu, expected, of_cuda, found = both(name, arrays(name, size, np.float32))
        for x, y in zip(expected, found, strict=True):
            np.testing.assert_allclose(y, x, 2e-6, 2e-6)
        assert of_cuda == pytest.approx(of_cpu)


def test_every_second_element_is_updated_in_place():
    memory = cuda.array(np.arange(10.0), np.float32)
    p = memory.view((5,), (2,))
    gradient = cuda.broadcast_to(cuda.array([1.0], np.float32), (5,))
    cuda.sgd_update(p, gradient, None, 1.0, 0.0, 0.0, 0.0, False, 1.0)
    assert cuda.to_numpy(memory).tolist() == [-1, 1, 1, 3, 3, 5, 5, 7, 7, 9]


def test_a_nan_gradient_comes_out_as_nan():
    for name, (count, call) in UPDATES.items():
        if name in ("lamb",):
            continue
        given = [cuda.array(np.ones(3), np.float32) for _ in range(2 + count)]
        given[1] = cuda.array([1, np.nan, 1], np.float32)
        call(cuda, *given)
        assert np.isnan(cuda.to_numpy(given[0])).tolist() == [False, True, False], name


def test_an_optimizer_trains_alike_on_both_devices():
    losses = {}
    for device in ("cpu", "cuda"):
        minidl.manual_seed(0)
        with minidl.device(device):
            weight = nn.Parameter(minidl.randn(40))
        optimizer = optim.AdamW([weight], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (weight * weight * weight).backward(minidl.ones(40, device=device))
            optimizer.step()
        losses[device] = weight.numpy()
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], 1e-4, 1e-5)
