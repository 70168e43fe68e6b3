"""Convolution layers are PyTorch's."""

import numpy as np
import pytest

import minidl
from minidl import nn

LAYERS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}, (2, 4, 9)),
    ("Conv1d", (4, 6, 3), {"padding": "same", "bias": False}, (2, 4, 9)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, 2), {"padding": "same"}, (2, 4, 9, 8)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": 2, "output_padding": (1, 0), "groups": 2}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": (2, 3), "padding": 1}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (4, 6, 3), {"dilation": 2, "bias": False}, (2, 4, 5, 4)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("name", "sizes", "options", "shape"), LAYERS)
def test_the_same_weights_give_the_values_and_gradients_of_pytorch(name, sizes, options, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    mine, other = getattr(nn, name)(*sizes, **options), getattr(torch.nn, name)(*sizes, **options)
    state = {key: value.detach().numpy() for key, value in other.state_dict().items()}
    mine.load_state_dict(state)
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    x, y = minidl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    out, expected = mine(x), other(y)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    grad = np.random.default_rng(1).standard_normal(out.shape, np.float32)
    out.backward(minidl.tensor(grad))
    expected.backward(torch.tensor(grad))
    for a, b in [(x, y), *zip(mine.parameters(), other.parameters(), strict=True)]:
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "sizes", "groups", "fan_in"),
    [
        ("Conv1d", (6, 30, 5), 2, 3 * 5),
        ("Conv2d", (6, 30, (3, 5)), 3, 2 * 15),
        ("ConvTranspose2d", (30, 40, 3), 2, 20 * 9),
    ],
)
def test_weight_and_bias_start_within_the_bound_of_pytorch_and_fill_it(name, sizes, groups, fan_in):
    minidl.manual_seed(0)
    layer, bound = getattr(nn, name)(*sizes, groups=groups), fan_in**-0.5
    for parameter in (layer.weight, layer.bias):
        values = np.abs(parameter.numpy())
        assert 0.9 * bound < values.max() <= bound


def test_a_layer_shows_the_options_that_are_not_usual():
    assert repr(nn.Conv2d(4, 6, 3)) == "Conv2d(4, 6, kernel_size=(3, 3), stride=1, padding=0)"
    assert repr(nn.Conv1d(4, 6, 3, 2, "same", 2, 2, False)).endswith(
        "kernel_size=(3,), stride=2, padding='same', dilation=2, groups=2, bias=False)"
    )
    assert repr(nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1)).endswith("stride=2, padding=0, output_padding=1)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.Conv2d(3, 4, 3, groups=2),
            "in_channels=3 and out_channels=4 must be positive multiples of groups=2",
        ),
        (lambda: nn.Conv2d(3, 0, 3), "out_channels=0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), "groups=0"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), r"kernel_size=\(3, 3, 3\), it must be 2 positive sizes"),
        (lambda: nn.Conv1d(3, 4, 0), "kernel_size=0"),
    ],
)
def test_a_layer_refuses_wrong_options_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
