"""Normalisation layers have PyTorch's parameters, buffers, values and gradients."""

import numpy as np
import pytest

import minidl
from minidl import nn, ops

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

LAYERS = [
    ("LayerNorm", (7,), {}), ("LayerNorm", ((5, 7),), {"eps": 0.1}), ("LayerNorm", (7,), {"bias": False}),
    ("LayerNorm", ((5, 7),), {"elementwise_affine": False}),
    ("RMSNorm", (7,), {}), ("RMSNorm", ((5, 7),), {"eps": 0.1}), ("RMSNorm", (7,), {"elementwise_affine": False}),
    ("GroupNorm", (2, 6), {}), ("GroupNorm", (3, 6, 0.1), {}), ("GroupNorm", (6, 6), {"affine": False}),
    ("GroupNorm", (1, 6), {"bias": False}),
    ("BatchNorm2d", (6,), {}), ("BatchNorm2d", (6, 0.1, 0.3), {}), ("BatchNorm2d", (6,), {"momentum": None}),
    ("BatchNorm2d", (6,), {"bias": False}), ("BatchNorm2d", (6,), {"affine": False}),
    ("BatchNorm2d", (6,), {"track_running_stats": False}),
    ("BatchNorm1d", (6,), {}), ("BatchNorm1d", (6,), {"momentum": None}),
]  # fmt: skip
IDS = ["-".join(map(str, (name, *arguments, *options))) for name, arguments, options in LAYERS]


def same(mine, other):
    """Values, gradients and state after a forward and a backward on the same input."""
    generator = np.random.default_rng(0)
    shape = {"BatchNorm1d": (4, 6, 7)}.get(type(mine).__name__, (4, 6, 5, 7))
    values, grad = (generator.standard_normal(shape).astype(np.float32) for _ in range(2))
    x, other_x = minidl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, expected = mine(x), other(other_x)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    y.backward(minidl.tensor(grad))
    expected.backward(torch.tensor(grad))
    for a, b in [(x, other_x), *zip(mine.parameters(), other.parameters(), strict=True)]:
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-4)
    state, other_state = mine.state_dict(), other.state_dict()
    assert list(state) == list(other_state)
    for name in state:
        assert state[name].shape == tuple(other_state[name].shape)
        assert str(state[name].dtype) == str(other_state[name].dtype).removeprefix("torch.")
        np.testing.assert_allclose(state[name].numpy(), other_state[name].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "arguments", "options"), LAYERS, ids=IDS)
def test_a_layer_gives_the_values_and_gradients_of_pytorch_in_training_and_evaluation(name, arguments, options):
    mine, other = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    with torch.no_grad():
        for i, (a, b) in enumerate(zip(mine.parameters(), other.parameters(), strict=True)):
            a.set_whole(np.random.default_rng(i).standard_normal(a.shape))
            b.copy_(torch.tensor(a.numpy()))
    for training in (True, True, False):
        mine.train(training).zero_grad()
        other.train(training).zero_grad()
        same(mine, other)


def test_batch_norm_goes_on_from_the_statistics_it_is_given():
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    first(minidl.randn(20, 3))
    second.load_state_dict(first.state_dict())
    x = minidl.randn(5, 3)
    np.testing.assert_array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    assert second.num_batches_tracked.item() == 1


def test_batch_norm_runs_on_meta_without_values():
    with minidl.device("meta"):
        for layer in (nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None)):
            layer(minidl.zeros(2, 3, 4, 4)).sum().backward()
            assert layer.weight.grad.shape == (3,)
            assert layer.eval()(minidl.zeros(2, 3, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.GroupNorm(4, 6), "num_channels=6 is not divisible by num_groups=4"),
        (lambda: nn.BatchNorm2d(3, eps=0.0), "BatchNorm2d: eps=0.0 is not a positive number"),
        (lambda: nn.BatchNorm2d(3)(minidl.ones(2, 3, 4)), r"needs an input of shape \(batch, 3, height, width\), not"),
        (lambda: nn.BatchNorm1d(3)(minidl.ones(2, 4)), r"shape \(batch, 3\) or \(batch, 3, length\), not \(2, 4\)"),
        (lambda: nn.BatchNorm1d(3)(minidl.ones(1, 3)), "more than one element in a channel"),
        (lambda: nn.LayerNorm((3, 4))(minidl.ones(2, 4)), r"must end with normalized_shape=\(3, 4\)"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_show_their_options():
    assert repr(nn.BatchNorm2d(4)) == "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    assert repr(nn.LayerNorm(4)) == "LayerNorm((4,), eps=1e-05, elementwise_affine=True)"


def test_a_network_with_batch_norm_learns_twice_as_its_gradients_say():
    """The gradient of a batch norm can be differentiated: a penalty on it has PyTorch's gradient."""
    values = np.random.default_rng(0).standard_normal((5, 3))
    mine, other = nn.BatchNorm1d(3).to("float64"), torch.nn.BatchNorm1d(3).double()
    gradients = []
    for layer, x, grad in [
        (mine, minidl.tensor(values, "float64", requires_grad=True), minidl.autograd.grad),
        (other, torch.tensor(values, requires_grad=True), torch.autograd.grad),
    ]:
        (slope,) = grad((layer(x) ** 3).sum(), [x], create_graph=True)
        (slope * slope).sum().backward()
        gradients.append([x.grad.numpy(), layer.weight.grad.numpy()])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_group_norm_of_one_group_a_channel_is_batch_norm_of_one_image():
    x = minidl.randn(1, 4, 5, 5)
    expected = ops.batch_norm(x, None, None, training=True)
    np.testing.assert_allclose(nn.GroupNorm(4, 4)(x).numpy(), expected.numpy(), atol=1e-5)
