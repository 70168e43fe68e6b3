"""BUILDERS: every model in it runs, and has as many parameters as published."""

import pickle
from inspect import signature

import numpy as np
import pytest

import minidl
from minidl import models, nn
from minidl.models import BUILDERS
from minidl.parallel import Plan
from minidl.parallel.blocks import several
from minidl.parallel.mesh import Mesh
from minidl.parallel.signature import signature as built_alike
from simulator import Cluster, simulate

ON_CPU = [
    "mlp-digits", "mlp-784", "cnn-digits", "cifar-cnn", "lenet", "resnet-digits", "vae-digits", "agent-cartpole",
    "gpt-tiny", "moe-tiny",
]  # fmt: skip


def assert_runs(name, device):
    """Of many blocks, which are alike but for the first ones, only some."""
    fewer = {"layers": 4} if {"layers", "heads"} <= set(signature(BUILDERS[name]).parameters) else {}
    with minidl.device(device):
        model = models.builder(name, **fewer)()
        x, y = model.example(2)
        loss = getattr(model, "loss", nn.CrossEntropyLoss)()(model(x), y)
        loss.backward()
    assert loss.shape == () and loss.device == device
    assert all(p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_goes_forward_and_backward_on_meta(name):
    assert_runs(name, "meta")


@pytest.mark.parametrize("name", ON_CPU)
def test_a_small_model_goes_forward_and_backward_on_its_own_example(name):
    assert_runs(name, "cpu")


@pytest.mark.parametrize("build", [*map(models.builder, ON_CPU), lambda: models.bert(1, 8, 2, 20, 6)])
def test_a_pickled_model_gives_the_same_on_its_own_example(build):
    model = build().eval()
    again = pickle.loads(pickle.dumps(model))
    (x, y), (same_x, same_y) = model.example(2), again.example(2)
    for ours, theirs in zip(several(model(x)), several(again(same_x)), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(y.numpy(), same_y.numpy())


@pytest.mark.parametrize("name", ["lenet", "agent-cartpole"])
def test_the_simulator_prices_a_model_with_the_loss_that_it_carries(name):
    prediction = simulate(models.builder(name), Plan(data=2, pipeline=2), Cluster.load("dgx-a100", devices=8), 8)
    assert prediction.step_seconds > 0 and prediction.fits


def parameters(name):
    with minidl.device("meta"):
        return sum(p.numel() for p in models.builder(name)().parameters())


# torchvision's documentation of its models, the published checkpoints of language models (LLaMA's without the table of
# rotary frequencies); LeNet's and the CIFAR network's follow from their layers.
PUBLISHED = {
    "lenet": 61_706,
    "cifar-cnn": 122_570,
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "inception3": 23_834_568,  # without the auxiliary classifier
    "llama-7b": 6_738_415_616,
    "llama-65b": 65_285_660_672,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_630_071_296,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_419_200 - 58 * 256,  # without the routers' biases
}
BILLIONS = {
    "gpt-oss-120b": 116.83,
    "kimi-k2": 1026,
    "lstm-ptb-large": 0.066,
    "gpt3-175b": 175,
    "gpt3-13b": 13,
    "gpt2-xl": 1.64,
    "gpt-1t": 1008,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_a_model_has_exactly_as_many_parameters_as_published(name, count):
    assert parameters(name) == count


@pytest.mark.parametrize(("name", "billions"), BILLIONS.items())
def test_the_large_models_have_as_many_parameters_as_published(name, billions):
    assert parameters(name) / 1e9 == pytest.approx(billions, rel=0.02)


def test_an_unknown_model_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="unknown model 'gpt5': there are mlp-digits, mlp-784"):
        models.builder("gpt5")


def test_a_model_is_built_with_other_arguments_than_builders_has():
    with minidl.device("meta"):
        model = models.builder("llama3-8b", layers=2, sequence=16)()
        deeper, deep = (models.builder("resnet50", layers=layers)() for layers in (101, 50))
        assert len(model) == 2 + 2 and model.example(3)[0].shape == (3, 16)
    assert len(deeper) - len(deep) == 17


@pytest.mark.parametrize(
    ("name", "argument", "known"),
    [("resnet50", "sequence", "layers, channels, size"), ("mlp-digits", "layers", "sizes"), ("lenet", "mesh", "chan")],
)
def test_a_model_has_no_argument_that_its_function_does_not_have(name, argument, known):
    with pytest.raises(ValueError, match=f"{name} has no {argument}: it has {known}"):
        models.builder(name, **{argument: 8})


@pytest.mark.parametrize("name", BUILDERS)
def test_what_is_built_does_not_depend_on_how_many_replicas_and_stages_there_are(name):
    """So a chain that was profiled once is that of all plans that split its layers alike."""
    fewer = {"layers": 4} if {"layers", "heads"} <= set(signature(BUILDERS[name]).parameters) else {}
    with minidl.device("meta"):
        one, other = (
            [built_alike(block) for block in models.builder(name, **fewer)(Mesh(sizes, rank=rank))]
            for sizes, rank in (({}, 0), ({"data": 2, "pipeline": 3}, 5))
        )
    assert one == other
