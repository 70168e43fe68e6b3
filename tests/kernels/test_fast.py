"""The fast kernels give what the plain ones give, and let no NaN disappear."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.kernels import cpu
from minidl.kernels.cpu import fast, updates
from minidl.kernels.cpu.fast.exponential import exp

GENERATOR = np.random.default_rng(0)


def large(*shape):
    """Float32 numbers, large and small ones among them."""
    return (GENERATOR.standard_normal(shape) * GENERATOR.choice([0.1, 1, 10], shape)).astype(np.float32)


def rectified(*shape):
    y = np.maximum(large(*shape), 0)
    y[5:6, 3:4] = 1  # where a gradient is made NaN below
    return y


def numbers(width):
    return GENERATOR.standard_normal(width).astype(np.float32)


def update(kernel, gradient, parameter, *arguments):
    """The parameter and the state after an update, which changes them in place."""
    parameter = parameter.copy()
    arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    kernel(parameter, gradient, *arguments)
    return (parameter, *(a for a in arguments if isinstance(a, np.ndarray)))


def moments(kernel, gradient, parameter, mean, square, *numbers):
    """The moments after an update, which leaves the parameter alone, and the number that it gives."""
    mean, square = mean.copy(), square.copy()
    return mean, square, np.asarray(kernel(parameter, gradient, mean, square, *numbers), mean.dtype)


PARAMETERS = updates.SGD_COMPILED_FROM
SCORES = (4, 3, 90, 70)
ROWS = (300, 301)
KERNELS = {
    "attention_weights": lambda k, x: k(x.copy(), 0.3, False),
    "attention_weights, causal": lambda k, x: k(x.copy(), 0.3, True),
    "attention_weights_grad": lambda k, g, x: k(g.copy(), x, 0.3),
    "layer_norm": lambda k, x, w, b: k(x, w, b, 1e-5),
    "layer_norm_grad": lambda k, g, x, w: k(g, x, x.mean(1, keepdims=True), 1 / (x.std(1, keepdims=True) + 0.1), w),
    "cross_entropy": lambda k, x, t: k(x, t, 7),
    "cross_entropy_grad": lambda k, p, t: k(np.asarray(0.3, p.dtype), p.copy(), t, 7, True),
    "relu": lambda k, x: k(x),
    "relu_grad": lambda k, g, y: k(g, y),
    "gelu": lambda k, x: k(x, "none"),
    "gelu_grad": lambda k, g, x: k(g, x, "none"),
    "gelu, tanh": lambda k, x: k(x, "tanh"),
    "gelu_grad, tanh": lambda k, g, x: k(g, x, "tanh"),
    "sgd_update": lambda k, g, p: update(k, g, p, None, 0.1, 0.0, 0.0, 0.01, False, 0.5),
    "sgd_update, momentum": lambda k, g, p, v: update(k, g, p, v, 0.1, 0.9, 0.2, 0.01, False, 0.5),
    "sgd_update, nesterov": lambda k, g, p, v: update(k, g, p, v, 0.1, 0.9, 0.0, 0.0, True, 0.5),
    "adam_update": lambda k, g, p, m, v: update(
        k, g, p, m, v * v, None, 0.9, 0.99, 1e-8, 0.1, 0.0, 1.1, 0.01, 1.0, 0.5
    ),
    "adam_update, decoupled": lambda k, g, p, m, v: update(
        k, g, p, m, v * v, None, 0.9, 0.99, 1e-8, 0.1, 0.2, 1.1, 0.0, 0.9, 0.5
    ),
    "lamb_moments_update": lambda k, g, p, m, v: moments(k, g, p, m, v * v, 0.9, 0.99, 1e-6, 1.2, 1.1, 0.01, 0.5),
    "adagrad_update": lambda k, g, p, v: update(k, g, p, v * v, 0.1, 1e-8, 0.01, 0.5),
    "adadelta_update": lambda k, g, p, v, u: update(k, g, p, v * v, u * u, 0.5, 0.9, 1e-6, 0.01, 0.5),
    "rmsprop_update": lambda k, g, p, v: update(k, g, p, v * v, None, None, 0.1, 0.9, 1e-6, 0.0, 0.01, 0.5),
    "lion_update": lambda k, g, p, m: update(k, g, p, m, 0.1, 0.9, 0.99, 0.01, 0.5),
}


def inputs_of(scores, rows, parameters):
    """What each of KERNELS is called with, by the shapes of scores and of a matrix, and the size of an update."""
    classes = GENERATOR.integers(rows[1], size=rows[0])
    return {
        "attention_weights": [large(*scores)],
        "attention_weights, causal": [large(*scores)],
        "attention_weights_grad": [large(*scores), large(*scores)],
        "layer_norm": [large(*rows), numbers(rows[1]), numbers(rows[1])],
        "layer_norm_grad": [large(*rows), large(*rows), numbers(rows[1])],
        "cross_entropy": [large(*rows), classes],
        "cross_entropy_grad": [large(*rows), classes],
        "relu": [large(*rows)],
        "relu_grad": [large(*rows), rectified(*rows)],
        "gelu": [large(*rows)],
        "gelu_grad": [large(*rows), large(*rows)],
        "gelu, tanh": [large(*rows)],
        "gelu_grad, tanh": [large(*rows), large(*rows)],
        "sgd_update": [large(parameters), large(parameters)],
        "sgd_update, momentum": [large(parameters) for _ in range(3)],
        "sgd_update, nesterov": [large(parameters) for _ in range(3)],
        "adam_update": [large(parameters) for _ in range(4)],
        "adam_update, decoupled": [large(parameters) for _ in range(4)],
        "lamb_moments_update": [large(parameters) for _ in range(4)],
        "adagrad_update": [large(parameters) for _ in range(3)],
        "adadelta_update": [large(parameters) for _ in range(4)],
        "rmsprop_update": [large(parameters) for _ in range(3)],
        "lion_update": [large(parameters) for _ in range(3)],
    }


INPUTS = inputs_of(SCORES, ROWS, PARAMETERS)


def run(name, inputs):
    out = KERNELS[name](getattr(cpu, name.split(",")[0]), *inputs)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("name", KERNELS)
def test_a_compiled_kernel_equals_its_numpy_twin_in_float64(name):
    assert any(map(fast.use_compiled, INPUTS[name]))
    expected = run(name, [x.astype(np.float64) if x.dtype == np.float32 else x for x in INPUTS[name]])
    for ours, exact in zip(run(name, INPUTS[name]), expected, strict=True):
        assert ours.shape == exact.shape and ours.dtype == np.float32
        assert np.abs(ours - exact).max() <= 2e-6 * max(1, np.abs(exact).max())


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=10)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 3))
def test_a_fast_kernel_gives_what_the_plain_one_gives_for_all_sizes(name, height, width, matrices):
    inputs = inputs_of((matrices, height, width), (height, width), height * width)[name]
    found = {}
    for compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast, "use_compiled", lambda x, least=0, on=compiled: on and x.dtype == np.float32)
            found[compiled] = run(name, inputs)
    for plain, ours in zip(found[False], found[True], strict=True):
        assert plain.shape == ours.shape and plain.dtype == ours.dtype == np.float32
        np.testing.assert_allclose(ours, plain, 1e-4, 1e-5 * max(1, np.abs(plain).max()))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(1, 3), st.booleans())
def test_a_product_over_threads_and_turned_is_the_plain_one_for_all_sizes(m, k, n, matrices, with_bias):
    a, b = large(matrices, m, k), large(matrices, k, n)
    weight, bias = large(n, k), numbers(n) if with_bias else None
    found = []
    for chosen in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast.products, "OWN_THREAD", 1)
            for rule in ("worth_threads", "is_long"):
                patch.setattr(fast.products, rule, lambda *given, chosen=chosen: chosen)
            found.append((cpu.matmul(a, b), cpu.matmul(a[0], b[0]), cpu.linear(a[0], weight, bias)))
    for plain, ours in zip(*found, strict=True):
        assert plain.shape == ours.shape and plain.dtype == ours.dtype
        np.testing.assert_allclose(ours, plain, 1e-4, 1e-3)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_nan_or_an_infinity_is_not_hidden(name, wrong):
    inputs = [x.copy() for x in INPUTS[name]]
    inputs[0][(..., 5, 3) if inputs[0].ndim > 1 else 5] = wrong
    with np.errstate(invalid="ignore"):
        out = run(name, inputs)[0]
    assert not np.isfinite(out).all()


def test_the_exponential_is_exact_to_seven_digits():
    x = np.linspace(-86, 86, 100_001).astype(np.float32)
    ours = np.array([exp(v) for v in x[::50]])
    np.testing.assert_allclose(ours, np.exp(x[::50].astype(np.float64)), rtol=5e-7)


def test_a_strided_input_gives_the_same_result():
    x = large(*ROWS)
    strided = np.asfortranarray(x)
    np.testing.assert_array_equal(cpu.gelu(strided, "tanh"), cpu.gelu(x, "tanh"))
    w = numbers(301)
    np.testing.assert_array_equal(cpu.layer_norm(strided, w, w, 1e-5)[0], cpu.layer_norm(x, w, w, 1e-5)[0])


def test_images_keep_their_channels_last_through_relu():
    x = large(5, 40, 30, 20).transpose(0, 3, 1, 2)
    grad = large(5, 40, 30, 20).transpose(0, 3, 1, 2)
    y = cpu.relu(x)
    out = cpu.relu_grad(grad, y)
    assert y.strides == out.strides == x.strides
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(out, np.where(x > 0, grad, 0))
    np.testing.assert_array_equal(cpu.relu_grad(np.ascontiguousarray(grad), y), out)


def test_the_first_use_of_compiled_kernels_is_announced_once_and_the_next_finds_them(tmp_path):
    script = (
        "import minidl\n"
        "from minidl.parallel import launch\n"
        "work = lambda group: minidl.randn(300, 300).relu().shape\n"
        "launch(work, 2)\n"
        "work(None)\n"
        "minidl.randn(300, 300).sigmoid()\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(minidl.__file__).parents[1])}
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    ]
    assert said[0].count("compiles its kernels for this processor") == 1 and said[1] == ""


def test_without_a_folder_to_keep_them_kernels_are_compiled_all_the_same(tmp_path):
    script = (
        "import tempfile\n"
        "def refuse(**_): raise PermissionError\n"
        "tempfile.TemporaryFile = refuse\n"
        "import minidl\n"
        "print(minidl.ones(300, 300).relu().sum().item())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(minidl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "90000.0" and "NUMBA_CACHE_DIR" in done.stderr


@pytest.mark.parametrize("turned", ["grad", "x"])
@pytest.mark.parametrize(
    "kernel", [cpu.relu_grad, lambda grad, x: cpu.gelu_grad(grad, x, "tanh")], ids=["relu", "gelu"]
)
def test_gradient_and_activation_may_lie_in_different_orders_of_memory(kernel, turned):
    generator = np.random.default_rng(0)
    arrays = {name: generator.standard_normal((40, 32, 8, 8), np.float32) for name in ("grad", "x")}
    expected = kernel(*(array.astype(np.float64) for array in arrays.values()))
    arrays[turned] = np.ascontiguousarray(np.moveaxis(arrays[turned], 1, -1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(kernel(*arrays.values()), expected, rtol=1e-5, atol=2e-6)
