"""Normalisation is PyTorch's, over random shapes, layouts and options; and it keeps its digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, compare, torch

import minidl
from minidl import ops

F = torch.nn.functional


def trailing(d, *names):
    """x and the shape of its last dimensions; a weight and a bias, or not."""
    shape = tuple(d.size(2) for _ in range(d.int(1, 2)))
    x = d.floats(*d.shape(0, 2), *shape)
    return x, shape, *[d.pick(None, d.floats(*shape)) for _ in names]


def grouped(d):
    groups, size = d.int(1, 3), d.int(1, 3)
    parameters = [d.floats(groups * size) for _ in range(d.int(0, 2))]  # PyTorch takes no bias without a weight here
    return d.floats(d.size(), groups * size, *d.shape(1, 3, low=2)), groups, *parameters, {"eps": d.pick(1e-5, 0.1)}


def batch(d):
    """x, no running statistics; a weight and a bias, or not."""
    channels = d.size(1)
    x = d.floats(d.size(2), channels, *d.shape(0, 2, low=1))
    return x, None, None, *[d.pick(None, d.floats(channels)) for _ in range(2)]


ROWS = [
    Row("layer_norm", ops.layer_norm, F.layer_norm, lambda d: trailing(d, "weight", "bias"), tolerance=100),
    Row("rms_norm", ops.rms_norm, F.rms_norm, lambda d: (*trailing(d, "weight"), d.pick(None, 0.1)), tolerance=100),
    Row("group_norm", ops.group_norm, F.group_norm, grouped, tolerance=100),
    Row("batch_norm", ops.batch_norm, F.batch_norm, lambda d: (*batch(d), {"training": True}), tolerance=100),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_a_normalisation_is_that_of_pytorch(row, data):
    compare(row, data.draw)


LARGE = (8, 16, 24, 24)  # compiled
SMALL = (3, 4, 5, 5)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_move_and_are_used_as_those_of_pytorch(training, shape):
    generator = np.random.default_rng(0)
    x, weight, bias, mean = (generator.standard_normal(s).astype(np.float32) for s in (shape, *[shape[1]] * 3))
    variance = np.exp(mean)
    mine, other = ([f(a) for a in (x, mean, variance, weight, bias)] for f in (minidl.tensor, torch.tensor))
    for i in (0, 3, 4):
        mine[i].requires_grad_(), other[i].requires_grad_()
    y, expected = ops.batch_norm(*mine, training, 0.3), F.batch_norm(*other, training, 0.3)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    for a, b in zip(mine[1:3], other[1:3], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    grad = generator.standard_normal(shape).astype(np.float32)
    y.backward(minidl.tensor(grad))
    expected.backward(torch.tensor(grad))
    for i in (0, 3, 4):
        np.testing.assert_allclose(mine[i].grad.numpy(), other[i].grad.numpy(), rtol=1e-4, atol=1e-3)


def test_an_empty_batch_leaves_the_running_statistics_alone():
    mean, variance = minidl.ones(3), minidl.ones(3)
    ops.batch_norm(minidl.ones(0, 3, 2), mean, variance, training=True)
    np.testing.assert_array_equal(mean.numpy(), 1)
    np.testing.assert_array_equal(variance.numpy(), 1)


NORMALISATIONS = {
    "batch_norm": lambda x: ops.batch_norm(x, None, None, training=True),
    "group_norm": lambda x: ops.group_norm(x, 4),
    "layer_norm": lambda x: ops.layer_norm(x, x.shape[1:]),
}


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_mean_ten_thousand_times_the_deviation_costs_no_digits(name, shape):
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32)
    exact = NORMALISATIONS[name](minidl.tensor(x, "float64")).numpy()
    naive = (x * x).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2  # E[x^2] - E[x]^2
    assert np.abs(naive - 1).max() > 0.5
    np.testing.assert_allclose(NORMALISATIONS[name](minidl.tensor(x)).numpy(), exact, atol=2e-3)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_images_keep_their_channels_last_in_memory(name):
    x = minidl.randn(2, 5, 6, 4).permute(0, 3, 1, 2)
    if name != "layer_norm":
        assert NORMALISATIONS[name](x).permute(0, 2, 3, 1).data.flags.c_contiguous
