"""Activation layers give PyTorch's values and gradients, at the edges too."""

import numpy as np
import pytest

import minidl
from minidl import nn

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

LAYERS = [
    ("ReLU", {}), ("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("PReLU", {}),
    ("PReLU", {"num_parameters": 6, "init": 0.1}), ("ELU", {}), ("ELU", {"alpha": 0.5}), ("GELU", {}),
    ("GELU", {"approximate": "tanh"}), ("SiLU", {}), ("Mish", {}), ("Sigmoid", {}), ("LogSigmoid", {}), ("Tanh", {}),
    ("Softplus", {}), ("Softplus", {"beta": 2.5, "threshold": 3}), ("Softmax", {"dim": 1}), ("LogSoftmax", {"dim": -1}),
]  # fmt: skip
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in LAYERS]


def forward_and_backward(module, x, grad):
    """The result and the gradients of the input and of the parameters."""
    y = module(x)
    y.backward(grad)
    return [np.asarray(t.detach().numpy()) for t in (y, x.grad, *(p.grad for p in module.parameters()))]


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=IDS)
def test_a_layer_gives_the_values_and_gradients_of_pytorch(name, options):
    generator = np.random.default_rng(0)
    values = (3 * generator.standard_normal((5, 6, 7))).astype(np.float32)
    grad = generator.standard_normal((5, 6, 7)).astype(np.float32)
    mine = forward_and_backward(
        getattr(nn, name)(**options), minidl.tensor(values, requires_grad=True), minidl.tensor(grad)
    )
    other = forward_and_backward(
        getattr(torch.nn, name)(**options), torch.tensor(values, requires_grad=True), torch.tensor(grad)
    )
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


EDGES = [0, -0.0, 1e-6, -1e-6, 30, -30, 88, -88, 1000, -1000, np.inf, -np.inf]
ELEMENTWISE = [
    (name, options) for name, options in LAYERS if name not in ("Softmax", "LogSoftmax", "GELU", "PReLU", "ReLU")
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=lambda x: str(x))
def test_zeros_large_numbers_infinities_and_nan_are_treated_as_in_pytorch(name, options):
    edges = EDGES if name == "ELU" else [*EDGES, np.nan]  # the gradient of PyTorch's elu at NaN depends on the place
    values = np.array(edges, np.float32)
    ones = np.ones_like(values)
    mine = forward_and_backward(
        getattr(nn, name)(**options), minidl.tensor(values, requires_grad=True), minidl.tensor(ones)
    )
    other = forward_and_backward(
        getattr(torch.nn, name)(**options), torch.tensor(values, requires_grad=True), torch.tensor(ones)
    )
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-20)


def test_prelu_refuses_a_weight_that_is_not_one_a_channel():
    with pytest.raises(ValueError, match=r"the weight has shape \(3,\), for an input \(2, 4\) it is \(1,\) or \(4,\)"):
        nn.PReLU(3)(minidl.ones(2, 4))


def test_the_layers_show_their_options():
    assert repr(nn.Softplus(2.0)) == "Softplus(beta=2.0, threshold=20.0)"
    assert repr(nn.PReLU(4)) == "PReLU(num_parameters=4)"
