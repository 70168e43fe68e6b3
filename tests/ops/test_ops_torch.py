"""Values and gradients are PyTorch's, in float32."""

import numpy as np
import pytest
from op_cases import arrays, away_from_zero, distinct, floats, ints

import minidl
from minidl.kernels.cpu.gelu import erf
from minidl.nn import functional as ours

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
theirs = torch.nn.functional

SAME = [
    ("gelu", lambda f, x: f.gelu(x), floats(50, 20)),
    ("gelu, tanh", lambda f, x: f.gelu(x, approximate="tanh"), floats(50, 20)),
    ("relu", lambda f, x: f.relu(x), away_from_zero(5, 3)),
    ("tanh", lambda f, x: f.tanh(x), floats(5, 3)),
    ("sigmoid", lambda f, x: f.sigmoid(x), floats(5, 3)),
    ("softmax", lambda f, x: f.softmax(x, 1), floats(5, 3)),
    ("log_softmax", lambda f, x: f.log_softmax(x, 0), floats(5, 3)),
    ("linear", lambda f, *a: f.linear(*a), floats(2, 5, 7), floats(3, 7), floats(3)),
    ("cross_entropy", lambda f, *a: f.cross_entropy(*a), floats(300, 100), ints(100, 300)),
    ("embedding", lambda f, *a: f.embedding(*a), ints(9, 4, 5), floats(9, 3)),
    ("conv2d", lambda f, *a: f.conv2d(*a, stride=2, padding=1), floats(3, 4, 9, 8), floats(5, 4, 3, 3), floats(5)),
    ("conv2d, large", lambda f, *a: f.conv2d(*a, padding=1), floats(9, 16, 32, 32), floats(8, 16, 3, 3)),
    ("max_pool2d", lambda f, x: f.max_pool2d(x, 3, 2, 1), distinct(2, 3, 7, 8)),
    ("attention", lambda f, *a: f.scaled_dot_product_attention(*a), *[floats(2, 3, 9, 8)] * 3),
    ("attention, causal", lambda f, *a: f.scaled_dot_product_attention(*a, is_causal=True), *[floats(2, 3, 9, 8)] * 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in SAME], ids=[n for n, *_ in SAME])
def test_values_and_gradients_are_those_of_pytorch(name, function, makers):
    inputs = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays(makers)]
    mine = [minidl.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    out, expected = function(ours, *mine), function(theirs, *other)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    grad = np.random.default_rng(2).standard_normal(out.shape, np.float32)
    out.backward(minidl.tensor(grad, "float32"))
    expected.backward(torch.tensor(grad))
    for a, b in zip(mine, other, strict=True):
        if a.requires_grad:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-3, atol=2e-4)


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


def test_max_with_a_dim_gives_values_and_indices_as_in_pytorch():
    values = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    largest, where = minidl.tensor(values).max(1, keepdim=True)
    expected, expected_where = torch.tensor(values).max(1, keepdim=True)
    np.testing.assert_array_equal(largest.numpy(), expected.numpy())
    np.testing.assert_array_equal(where.numpy(), expected_where.numpy())


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
