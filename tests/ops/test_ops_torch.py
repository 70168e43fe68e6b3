"""Values and gradients are PyTorch's where random small shapes do not lead: large inputs, zeros, ties, extremes."""

import numpy as np
import pytest
from op_cases import arrays, floats, ints

import minidl
from minidl import autograd, ops
from minidl.kernels.cpu.gelu import erf
from minidl.nn import functional as ours

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
theirs = torch.nn.functional

LARGE = {  # worked through in several blocks
    "cross_entropy": (lambda f, *a: f.cross_entropy(*a), floats(300, 100), ints(100, 300)),
    "conv2d": (lambda f, *a: f.conv2d(*a, padding=1), floats(9, 16, 32, 32), floats(8, 16, 3, 3)),
}


@pytest.mark.parametrize("name", LARGE)
def test_values_and_gradients_of_large_inputs_are_those_of_pytorch_in_float64(name):
    function, *makers = LARGE[name]
    inputs = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays(makers)]
    mine = [minidl.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in inputs]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in wide]
    out, expected = function(ours, *mine), function(theirs, *other)
    grad = np.random.default_rng(2).standard_normal(out.shape, np.float32)
    out.backward(minidl.tensor(grad, "float32"))
    expected.backward(torch.tensor(grad.astype(np.float64)))
    pairs = [(out, expected.detach()), *((a.grad, b.grad) for a, b in zip(mine, other, strict=True) if b.requires_grad)]
    for found, wanted in pairs:  # another processor adds in another order: rounding is of the size of the largest
        wanted = wanted.numpy()
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exponent", [0, 1, 2, 3.0])
def test_the_gradient_of_a_power_at_0_is_that_of_pytorch(exponent):
    values = np.array([-1, 0, 2], np.float32)
    mine, other = minidl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    (mine**exponent).sum().backward()
    (other**exponent).sum().backward()
    np.testing.assert_array_equal(mine.grad.numpy(), other.grad.numpy())


def test_erf_is_that_of_pytorch_to_the_last_digits():
    x = np.linspace(-9, 9, 20001)
    np.testing.assert_allclose(erf(x), torch.erf(torch.tensor(x)).numpy(), rtol=0, atol=5e-15)
    x = x.astype(np.float32)
    np.testing.assert_allclose(erf(x), torch.erf(torch.tensor(x)).numpy(), rtol=0, atol=4e-7)


def test_extreme_logits_do_not_overflow():
    logits = minidl.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = ours.cross_entropy(logits, minidl.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert np.isfinite(logits.grad.numpy()).all()


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_of_equal_elements_max_sends_the_gradient_to_the_index_it_gives_and_amax_splits_it(dim, keepdim):
    values = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.float32)
    mine, other = minidl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    (largest, where), (expected, expected_where) = mine.max(dim, keepdim), other.max(dim, keepdim)
    np.testing.assert_array_equal(where.numpy(), expected_where.numpy())
    grad = np.random.default_rng(1).standard_normal(largest.shape, np.float32)
    largest.backward(minidl.tensor(grad))
    expected.backward(torch.tensor(grad))
    np.testing.assert_array_equal(mine.grad.numpy(), other.grad.numpy())
    mine.grad = other.grad = None
    mine.amax(dim, keepdim).backward(minidl.tensor(grad))
    other.amax(dim, keepdim).backward(torch.tensor(grad))
    np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("p", [0, 1, 1.5, 2, 3, np.inf, -np.inf])
@pytest.mark.parametrize("values", [[0, 0, 0], [0, 2, -2], [1e-30, -1e-30, 0], [np.nan, 1, 0]], ids=str)
def test_the_gradient_of_a_norm_at_zeros_ties_and_what_underflows_is_that_of_pytorch(values, p):
    mine, other = (f(np.array(values, np.float32)) for f in (minidl.from_numpy, torch.tensor))
    mine.requires_grad_(), other.requires_grad_()
    with np.errstate(all="ignore"):
        ops.norm(mine, p).backward()
    torch.norm(other, p).backward()
    expected = np.zeros(3) if p == 0 else other.grad.numpy()
    np.testing.assert_allclose(mine.grad.numpy(), expected, rtol=1e-6)


def test_the_second_derivative_of_relu_lets_through_what_the_first_does():
    x = minidl.tensor([np.nan, np.inf, -1.0, 0.0, 2.0], requires_grad=True)
    weights = minidl.tensor([1.0, 2, np.inf, np.nan, 3], requires_grad=True)
    (once,) = autograd.grad(ops.relu(x), x, weights)
    (twice,) = autograd.grad(ops.relu(x), x, weights, create_graph=True)
    np.testing.assert_array_equal(once.numpy(), [1, 2, 0, 0, 3])
    np.testing.assert_array_equal(twice.numpy(), once.numpy())
