"""Initialisation: the statistics that the papers ask for, and recipes that stay with their parameter."""

import math

import numpy as np
import pytest

import minidl
from minidl import nn, random
from minidl.nn import init

SHAPE = (80, 30, 3, 3)  # fan_in 270, fan_out 720


def drawn(recipe, shape=SHAPE):
    return recipe(random.generator(0, "weight"), shape)


@pytest.mark.parametrize(
    ("recipe", "std"),
    [
        (init.xavier_normal(), math.sqrt(2 / 990)),
        (init.xavier_uniform(gain=2), 2 * math.sqrt(2 / 990)),
        (init.kaiming_normal(), math.sqrt(2 / 270)),
        (init.kaiming_uniform(nonlinearity="relu"), math.sqrt(2 / 270)),
        (init.kaiming_uniform(a=math.sqrt(5)), math.sqrt(1 / 3 / 270)),
        (init.kaiming_normal(mode="fan_out", nonlinearity="tanh"), 5 / 3 / math.sqrt(720)),
        (init.normal(0, 0.02), 0.02),
        (init.uniform(-3, 3), math.sqrt(3)),
        (init.fan_in_uniform(270), math.sqrt(1 / 3 / 270)),
    ],
)
def test_a_recipe_has_mean_0_and_the_standard_deviation_of_its_paper(recipe, std):
    values = drawn(recipe)
    assert values.shape == SHAPE and values.dtype == np.float64
    assert abs(values.mean()) < 0.02 * std
    assert values.std() == pytest.approx(std, rel=0.01)


def test_normal_and_uniform_are_of_that_form():
    standard = drawn(init.xavier_normal()) / math.sqrt(2 / 990)
    assert np.mean(np.abs(standard) < 1) == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.01)
    flat = drawn(init.xavier_uniform()) / math.sqrt(6 / 990)
    assert np.histogram(flat, 10, (-1, 1))[0] / flat.size == pytest.approx(0.1, rel=0.05)


def test_a_truncated_normal_is_the_normal_inside_its_bounds():
    values = drawn(init.trunc_normal(1, 2, 0, 2), (300, 100))  # half a standard deviation to each side
    assert values.min() >= 0 and values.max() <= 2
    inside = math.erf(0.5 / math.sqrt(2))
    for edge in (0.25, 0.5):
        expected = math.erf(edge / 2 / math.sqrt(2)) / inside
        assert np.mean(np.abs(values - 1) < edge) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (5, 2, 3), (5, 2, 2)])
def test_orthogonal_gives_orthonormal_rows_or_columns(shape):
    values = drawn(init.orthogonal(gain=3), shape).reshape(shape[0], -1) / 3
    product = values @ values.T if values.shape[0] <= values.shape[1] else values.T @ values
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-12)


def test_orthogonal_matrices_are_uniform():
    corners = [init.orthogonal()(np.random.default_rng(i), (2, 2))[0, 0] for i in range(2000)]
    angles = np.arccos(corners)  # of a uniform rotation or reflection
    assert np.histogram(angles, 4, (0, math.pi))[0] / 2000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("zeros_", {}, 0, 0), ("ones_", {}, 1, 1), ("constant_", {"value": 2.5}, 2.5, 2.5), ("uniform_", {}, 0, 1),
        ("normal_", {"mean": 10.0, "std": 0.1}, 9, 11), ("trunc_normal_", {}, -2, 2), ("xavier_uniform_", {}, -1, 1),
        ("xavier_normal_", {}, -5, 5), ("kaiming_uniform_", {}, -2, 2), ("kaiming_normal_", {}, -8, 8),
        ("orthogonal_", {}, -1, 1),
    ],
)  # fmt: skip
def test_in_place_a_parameter_takes_the_recipe_and_its_values(name, options, low, high):
    layer = nn.Linear(6, 5)
    weight = layer.weight
    minidl.manual_seed(3)
    assert getattr(init, name)(weight, **options) is weight is layer.weight
    recipe = getattr(init, name[:-1])(**options)
    expected = recipe(np.random.Generator(np.random.Philox(3)), (5, 6)).astype(np.float32)
    np.testing.assert_array_equal(weight.numpy(), expected)
    assert weight.requires_grad and weight.numpy().min() >= low and weight.numpy().max() <= high


def test_on_meta_the_recipe_waits_for_the_keyed_generator():
    with minidl.device("meta"):
        layer = nn.Linear(6, 5)
        init.orthogonal_(layer.weight, gain=2)
    assert layer.weight.device == "meta"
    layer.materialize(seed=1)
    expected = init.orthogonal(gain=2)(random.generator(1, "weight"), (5, 6)).astype(np.float32)
    np.testing.assert_array_equal(layer.weight.numpy(), expected)


def test_the_gains_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.xavier_uniform_(nn.Linear(2, 2).bias), ValueError, r"shape \(2,\), two dimensions at least"),
        (lambda: init.kaiming_normal(mode="fan"), ValueError, "mode='fan'"),
        (lambda: init.kaiming_normal(nonlinearity="gelu"), ValueError, "nonlinearity='gelu', it must be one of linear"),
        (lambda: init.trunc_normal(a=5, b=9), ValueError, r"\[5, 9\] must hold numbers within 4 std=1.0 of mean=0.0"),
        (lambda: init.zeros_(minidl.ones(2, 2)), TypeError, "zeros_ needs a Parameter, not a Tensor"),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
