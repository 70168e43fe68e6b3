"""Modules: names, state, initialisation and layers."""

import copy
import pickle

import numpy as np
import pytest

import minidl
from minidl import nn, random
from minidl.nn.cut import Cut, join


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.5)))


def test_parameters_are_named_by_their_path():
    names = [name for name, _ in model().named_parameters()]
    assert names == ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copied_or_pickled_model_has_the_same_values_and_no_memory_in_common(copied):
    first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2), nn.TransformerBlock(4, 2)).eval()
    first[0].weight.requires_grad_(False)
    second = copied(first)
    assert not second.training and not second[0].weight.requires_grad and second[0].bias.requires_grad
    for name, tensor in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name].numpy(), tensor.numpy())
    first[0].bias.data += 1
    assert (second[0].bias.numpy() != first[0].bias.numpy()).all()


def test_a_copy_of_a_model_without_values_keeps_the_recipes_of_its_parameters():
    with minidl.device("meta"):
        first = nn.Linear(3, 4)
    second = copy.deepcopy(first)
    for layer in first, second:
        layer.materialize(seed=0)
    np.testing.assert_array_equal(first.weight.numpy(), second.weight.numpy())


def test_a_parameter_stays_one_and_a_buffer_takes_the_values_of_a_tensor():
    layer = nn.BatchNorm1d(2)
    with pytest.raises(TypeError, match="weight is a parameter: give it an nn.Parameter"):
        layer.weight = minidl.ones(2)
    layer.running_mean = layer.running_mean + 3
    assert layer.state_dict()["running_mean"].numpy().tolist() == [3, 3]
    layer.weight, layer.bias = nn.Parameter(minidl.zeros(2)), None
    assert list(layer.state_dict()) == ["weight", "running_mean", "running_var", "num_batches_tracked"]


@pytest.mark.parametrize("given", [[1.0, 2.0], np.ones(2, np.float32), (2, 3)])
def test_a_parameter_of_neither_a_tensor_nor_a_shape_with_a_recipe_is_refused(given):
    with pytest.raises(TypeError, match="Parameter needs a tensor, or a shape and a recipe of nn.init"):
        nn.Parameter(given)


def test_a_shared_parameter_is_found_once():
    layer = nn.Linear(2, 2)
    assert len(list(nn.Sequential(layer, nn.ReLU(), layer).parameters())) == 2


def test_state_is_loaded_by_name_and_a_wrong_one_is_refused():
    first, second = model(), model()
    second.load_state_dict(first.state_dict())
    x = minidl.randn(5, 3)
    np.testing.assert_array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    state = first.state_dict()
    state["extra"] = state.pop("0.bias")
    with pytest.raises(ValueError, match=r"missing \['0.bias'\], unexpected \['extra'\]"):
        second.load_state_dict(state)
    with pytest.raises(ValueError, match=r"0.bias has shape \(4,\), the values given \(5,\)"):
        second.load_state_dict({**first.state_dict(), "0.bias": np.zeros(5)})


def test_train_and_eval_reach_every_module():
    m = model()
    m.eval()
    assert not m[2][1].training
    m.train()
    assert m[2][1].training


def test_the_layers_show_their_options():
    text = repr(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.GELU("tanh")))
    assert "(0): Conv2d(1, 4, kernel_size=(3, 3), stride=1, padding=1)" in text
    assert "(2): GELU(approximate='tanh')" in text


def test_the_layers_give_the_shapes_of_pytorch():
    images = minidl.randn(2, 3, 8, 8)
    assert nn.Conv2d(3, 5, (3, 2), stride=2, padding=(1, 0))(images).shape == (2, 5, 4, 4)
    assert nn.MaxPool2d(3, 1)(images).shape == (2, 3, 6, 6)
    assert nn.Flatten()(images).shape == (2, 192)
    assert nn.Flatten()(minidl.ones(2, 5)).shape == (2, 5)
    assert nn.Embedding(7, 4)(minidl.tensor([[1, 2, 3]])).shape == (1, 3, 4)
    assert nn.Identity()(images) is images
    assert nn.Softmax(1)(images).sum(1).numpy() == pytest.approx(1, abs=1e-6)
    for layer in (nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.ReLU(), nn.LayerNorm(8)):
        assert layer(images).shape == images.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(-1, 3), "in_features=-1, out_features=3, both must be at least 1"),
        (lambda: nn.Linear(0, 3), "in_features=0"),
        (lambda: nn.Linear(3, 0), "out_features=0"),
        (lambda: nn.Dropout(2), "p=2, it must be at least 0 and below 1"),
    ],
)
def test_a_layer_refuses_wrong_options_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_keyed_initialisation_does_not_depend_on_the_number_of_ranks(count):
    recipe = nn.init.fan_in_uniform(5)
    with minidl.device("meta"):
        layers = [nn.Module() for _ in range(count)]
        for index, layer in enumerate(layers):
            layer.weight = nn.Parameter(Cut((8, 5)).split(0, index, count), init=recipe)
    for layer in layers:
        layer.materialize(seed=3, prefix="block")
    whole = join(("weight", layer.weight.numpy(), layer.weight.cut) for layer in layers)["weight"]
    expected = recipe(random.generator(3, "block.weight"), (8, 5)).astype(np.float32)
    np.testing.assert_array_equal(whole, expected)


def test_keyed_initialisation_differs_by_name_and_by_seed():
    with minidl.device("meta"):
        m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    m.materialize(seed=0)
    other.materialize(seed=1)
    assert (m[0].weight.numpy() != m[1].weight.numpy()).all()
    assert (m[0].weight.numpy() != other[0].weight.numpy()).all()


def test_a_gradient_buffer_receives_the_gradient():
    layer = nn.Linear(3, 2)
    buffer = layer.weight.gradient_buffer = np.full((2, 3), np.nan, np.float32)
    for _ in range(2):
        layer(minidl.ones(4, 3)).sum().backward()
    assert layer.weight.grad.data is buffer
    np.testing.assert_array_equal(buffer, 8)


class Counter(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self):
        self.weight = nn.Parameter((2,), init=nn.init.ones())
        self.calls = nn.Buffer((1,), init=nn.init.zeros())

    def forward(self, x):
        self.calls.kernels.accumulate(self.calls.data, np.ones(1, np.float32))
        return x * self.weight


def test_a_buffer_is_state_and_no_parameter():
    counter = Counter()
    counter(minidl.ones(2))
    assert [name for name, _ in counter.named_parameters()] == ["weight"]
    assert [name for name, _ in counter.named_buffers()] == ["calls"]
    other = Counter()
    other.load_state_dict(counter.state_dict())
    assert other.calls.item() == 1 and not other.calls.requires_grad


def test_parameters_and_buffers_take_the_values_of_a_tensor():
    layer, values = nn.Identity(), minidl.tensor([1.0, 2.0])
    layer.weight = nn.Parameter(values)
    layer.register_buffer("mean", values)
    values.zero_()
    assert all(x.numpy().tolist() == [1, 2] for x in layer.state_dict().values()) and len(layer.state_dict()) == 2
    with pytest.raises(ValueError, match="a shape and a recipe"):
        nn.Buffer(minidl.zeros(2, device="meta"))


def test_a_buffer_that_takes_a_tensor_of_another_shape_is_whole_in_that_one():
    layer = nn.Identity()
    layer.register_buffer("history", minidl.zeros(1))
    layer.history = minidl.ones(3)
    assert layer.history.cut == nn.Cut((3,))
    layer.load_state_dict({"history": minidl.zeros(3)})
    assert layer.history.numpy().tolist() == [0, 0, 0]


def test_a_buffer_of_a_model_on_meta_is_materialised_with_its_values():
    with minidl.device("meta"):
        counter = Counter()
    counter.materialize(0, dtype=minidl.float64)
    assert counter.calls.device == "cpu" and counter.calls.dtype == minidl.float64


def test_loading_that_is_not_strict_takes_what_fits_and_names_the_rest():
    first, second = model(), model()
    state = first.state_dict()
    state["extra"] = state.pop("0.bias")
    before = second.state_dict()["0.bias"].numpy().copy()
    keys = second.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["0.bias"] and keys.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(second.state_dict()["0.bias"].numpy(), before)
    np.testing.assert_array_equal(second.state_dict()["0.weight"].numpy(), first.state_dict()["0.weight"].numpy())


def test_a_state_with_one_wrong_shape_changes_nothing():
    first, second = model(), model()
    before = {name: value.numpy().copy() for name, value in second.state_dict().items()}
    with pytest.raises(ValueError, match="2.0.bias has shape"):
        second.load_state_dict({**first.state_dict(), "2.0.bias": np.zeros(5)})
    for name, value in second.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_hooks_see_and_replace_what_goes_in_and_out():
    layer, seen = nn.ReLU(), []
    before = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    after = layer.register_forward_hook(lambda module, inputs, out: seen.append(out.numpy().tolist()))
    layer(minidl.tensor([-1.0, 3.0]))
    before.remove()
    layer(minidl.tensor([-1.0, 3.0]))
    after.remove()
    layer(minidl.tensor([-1.0, 3.0]))
    assert seen == [[0, 6], [0, 3]]


def test_a_copy_of_a_model_gets_gradients_of_its_own():
    first = model()
    second = copy.deepcopy(first)
    (second(minidl.ones(1, 3)).sum()).backward()
    assert next(first.parameters()).grad is None and next(second.parameters()).grad is not None


def test_lists_of_modules_are_sliced_extended_and_refuse_what_is_no_module():
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)]).append(nn.ReLU())
    assert len(layers) == 4 and len(layers[:2]) == 2 and isinstance(layers[-1], nn.ReLU)
    assert [name for name, _ in layers.named_parameters()][0] == "0.weight"
    chain = model()
    chain[1] = nn.Tanh()
    assert isinstance(chain[1], nn.Tanh) and isinstance(chain[:2], nn.Sequential) and len(list(chain)) == 3
    with pytest.raises(TypeError, match="number 0 is a int"):
        nn.ModuleList([3])
    with pytest.raises(TypeError, match="needs modules, not a int"):
        layers[0] = 3
    assert len(nn.ModuleList().extend(layers).extend([nn.ReLU()])) == 5


def test_a_frozen_parameter_gets_no_gradient():
    chain = model()
    chain[0].requires_grad_(False)
    chain(minidl.ones(1, 3)).sum().backward()
    assert chain[0].weight.grad is None and chain[2][0].weight.grad is not None
    chain.requires_grad_()
    assert all(p.requires_grad for p in chain.parameters())
