"""The compiled normalisation kernels give what their NumPy twins give, and let no NaN disappear."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.kernels import cpu
from minidl.kernels.cpu import fast

GENERATOR = np.random.default_rng(0)
SHAPES = {
    "rows": (1000, 70),
    "images": (5, 12, 30, 40),
    "many channels": (300, 260, 1, 1),
    "three channels": (30_000, 3),
}


def large(*shape):
    """Float32 numbers, large and small ones among them, with a mean."""
    return (GENERATOR.standard_normal(shape) * GENERATOR.choice([0.1, 1, 10], shape) + 3).astype(np.float32)


def batch_norm(x, grad, weight, bias):
    mean, variance = cpu.channel_moments(x)
    inverse = 1 / np.sqrt(variance + x.dtype.type(1e-3))
    sums = cpu.batch_norm_sums(grad, x, mean, inverse)
    count = x.size // x.shape[1]
    return (
        mean, variance, cpu.batch_norm(x, mean, inverse, weight, bias), *sums,
        cpu.batch_norm_grad(grad, x, mean, inverse, weight, *sums, count),
    )  # fmt: skip


def group_norm(x, grad, weight, bias):
    y, mean, inverse = cpu.group_norm(x, 2 if x.shape[1] % 2 == 0 else 1, weight, bias, 1e-3)
    return y, mean, inverse, *cpu.group_norm_grad(grad, x, mean, inverse, weight)


def rms_norm(x, grad, weight, bias):
    x, grad = (np.moveaxis(a, 1, -1).reshape(-1, x.shape[1]) for a in (x, grad))
    y, inverse = cpu.rms_norm(x, weight, 1e-3)
    return y, inverse, *cpu.rms_norm_grad(grad, x, inverse, weight)


FUNCTIONS = [batch_norm, group_norm, rms_norm]


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last], ids=["first", "last"])
@pytest.mark.parametrize("with_weight", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_normalisation_equals_its_numpy_twin_in_float64(function, shape, with_weight, layout):
    x, grad = layout(large(*shape)), layout(large(*shape))
    assert fast.use_compiled(x)
    parameters = (large(shape[1]), large(shape[1])) if with_weight else (None, None)
    exact = function(*(a if a is None else a.astype(np.float64) for a in (x, grad, *parameters)))
    for got, wanted in zip(function(x, grad, *parameters), exact, strict=True):
        assert got.dtype == np.float32 and got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_the_fast_kernels_give_what_the_plain_ones_give_for_all_sizes(function, n, c, height, width, last, weighted):
    x, grad = (channels_last(a) if last else a for a in (large(n, c, height, width), large(n, c, height, width)))
    parameters = (large(c), large(c)) if weighted else (None, None)
    found = []
    for compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast, "use_compiled", lambda x, least=0, on=compiled: on and x.dtype == np.float32)
            found.append(function(x, grad, *parameters))
    for plain, ours in zip(*found, strict=True):
        assert ours.dtype == plain.dtype == np.float32 and ours.shape == plain.shape
        assert np.abs(ours - plain).max() <= 1e-4 * max(1, np.abs(plain).max())


@pytest.mark.parametrize("shape", [*SHAPES.values(), (6, 4, 3)], ids=[*SHAPES, "not compiled"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_nan_or_an_infinity_is_not_hidden(function, shape, wrong):
    x = large(*shape)
    x[(5 if shape[0] > 5 else 2, 0, *(1 if n > 1 else 0 for n in shape[2:]))] = wrong
    with np.errstate(invalid="ignore"):
        results = function(x, large(*shape), None, None)
    assert not np.isfinite(results[2 if function is batch_norm else 0]).all()
