"""Softmax, attention's weights and losses on the GPU give what they give on the CPU."""

import numpy as np
import pytest

from minidl.kernels import cpu, cuda
from minidl.kernels.cuda import emulator

SHAPES = [((3, 5), -1), ((2, 3, 4), 1), ((5, 1), 0), ((2, 200), 1), ((1, 2100), -1), ((0, 3), 1), ((), 0)]
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


@pytest.fixture(params=[("float32", "forward"), ("float64", "reversed")], ids="-".join)
def dtype(request, monkeypatch):
    """The dtype, and with it the order in which threads run."""
    monkeypatch.setattr(emulator, "order", request.param[1])
    return request.param[0]


def random(shape, dtype="float64", seed=0):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def on_gpu(x):
    return cuda.array(x, x.dtype)


def same(result, expected, factor=1):
    found = cuda.to_numpy(result)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    tolerance = factor * TOLERANCE[expected.dtype.name]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape, dim", SHAPES)
def test_softmax_and_its_gradient_along_any_dimension(shape, dim, dtype):
    x, grad = random(shape, dtype), random(shape, dtype, 1)
    for name in ("softmax", "log_softmax"):
        y = getattr(cpu, name)(x, dim)
        same(getattr(cuda, name)(on_gpu(x), dim), y, 10)
        gradient = getattr(cuda, f"{name}_grad")(on_gpu(grad), on_gpu(y), dim)
        same(gradient, getattr(cpu, f"{name}_grad")(grad, y, dim), 50)


def test_a_row_that_is_no_row_of_memory():
    x = random((4, 6, 3))
    turned = cuda.permute(on_gpu(x), (2, 0, 1))
    same(cuda.softmax(turned, 2), cpu.softmax(x.transpose(2, 0, 1), 2))


@pytest.mark.parametrize("width", [5, 2100])
def test_infinities_and_nan_make_of_a_row_what_they_make_on_the_cpu(width):
    x = random((5, width))
    x[0], x[1, 2], x[2, 1], x[3, 0], x[4, 1:4] = -np.inf, np.inf, np.nan, -np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        same(cuda.softmax(on_gpu(x), 1), cpu.softmax(x, 1))
        same(cuda.attention_weights(on_gpu(x[None, 3:]), 2.0, False), cpu.attention_weights(x[None, 3:], 2.0, False))


@pytest.mark.parametrize("shape", [(2, 2, 3, 5), (1, 7, 7), (2, 300), (0, 3, 3)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_weights_are_made_in_place_and_a_query_that_sees_nothing_has_zeros(shape, is_causal, dtype):
    scores, grad = random(shape, dtype), random(shape, dtype, 1)
    scores[..., 0, :] = -np.inf
    given, given_grad = on_gpu(scores), on_gpu(grad)
    weights = cuda.attention_weights(given, 0.3, is_causal)
    assert weights is given
    expected = cpu.attention_weights(scores.copy(), 0.3, is_causal)
    same(weights, expected)
    result = cuda.attention_weights_grad(given_grad, weights, 0.3)
    assert result is given_grad
    same(result, cpu.attention_weights_grad(grad.copy(), expected, 0.3), 5)


@pytest.mark.parametrize("rows, classes", [(5, 3), (130, 4), (3, 700), (0, 3), (2, 1)])
def test_cross_entropy_is_the_sum_over_the_rows_that_count(rows, classes, dtype):
    x, grad = random((rows, classes), dtype), random((), dtype, 1)
    target = np.random.default_rng(2).integers(classes, size=rows)
    target[1:2] = -100
    loss, probabilities = cpu.cross_entropy(x, target, -100)
    found, on_device = cuda.cross_entropy(on_gpu(x), on_gpu(target), -100)
    same(found, loss, 10)
    same(on_device, probabilities)
    for reuse in (False, True):
        result = cuda.cross_entropy_grad(on_gpu(grad), on_device, on_gpu(target), -100, reuse)
        assert (result is on_device) == reuse
        same(result, cpu.cross_entropy_grad(grad, probabilities, target, -100, False), 5)


def test_an_ignored_row_has_no_gradient_even_where_the_mean_of_nothing_is_infinite():
    target = cuda.array([1, 1], np.int64)
    grad = cuda.array(np.inf, np.float32)
    result = cuda.cross_entropy_grad(grad, cuda.array([[0.5, 0.5]] * 2, np.float32), target, 1, True)
    assert not cuda.to_numpy(result).any()


def test_picking_and_its_gradient(dtype):
    x, grad = random((200, 3), dtype), random(200, dtype, 1)
    target = np.random.default_rng(2).integers(3, size=200)
    same(cuda.pick(on_gpu(x), on_gpu(target), 2), cpu.pick(x, target, 2))
    same(cuda.pick_grad(on_gpu(grad), on_gpu(target), 3, 2), cpu.pick_grad(grad, target, 3, 2))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_an_error_unless_it_is_ignored(label):
    x, target = random((4, 3), "float32"), np.array([0, label, -100, 2])
    for call in (
        lambda kernels, x, target: kernels.cross_entropy(x, target, -100),
        lambda kernels, x, target: kernels.pick(x, target, -100),
        lambda kernels, x, target: kernels.pick_grad(kernels.slice_last(x, 0, 1), target, 3, -100),
    ):
        with pytest.raises(ValueError) as ours:
            call(cuda, on_gpu(x), on_gpu(target))
        with pytest.raises(ValueError) as theirs:
            call(cpu, x, target)
        assert str(ours.value) == str(theirs.value)


def test_binary_cross_entropy_and_what_is_no_probability(dtype):
    p, target = (np.random.default_rng(seed).random((3, 50)).astype(dtype) for seed in (0, 1))
    p[0, :2], target[0, :3] = (0, 1), (1, 0, 1)
    same(cuda.binary_cross_entropy(on_gpu(p), on_gpu(target)), cpu.binary_cross_entropy(p, target))
    for bad in (-0.1, 1.5, np.nan):
        wrong = p.copy()
        wrong[1, 2] = bad
        for given in ((wrong, target), (p, wrong)):
            with pytest.raises(ValueError, match=r"they must be in \[0, 1\]"):
                cuda.binary_cross_entropy(*map(on_gpu, given))
