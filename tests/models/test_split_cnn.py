"""A convolutional network that is split over the tensor axis, in each of the ways, trains as on one worker."""

from functools import cache, partial

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.image_layers import SPLITS
from minidl.parallel import Mesh, Plan, train
from tests.parallel.covering import assert_same

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]
PLANS = [Plan(tensor=2), Plan(tensor=2, data=2), Plan(tensor=2, pipeline=2, micro_batches=2)]


def trained(build, dataset, plan, batch_size=480):
    """Into the second epoch of the digits, whose last batch has no size that divides."""
    return train(
        build, dataset, plan, optimizer=lambda p: optim.SGD(p, lr=0.3, momentum=0.9), loss=nn.CrossEntropyLoss(),
        batch_size=batch_size, steps=4, dtype="float64", timeout=120,
    )  # fmt: skip


def small_cnn(mesh, split="space"):
    return models.cnn(1, 8, widths=(4, 6, 8), mesh=mesh, split=split)


@cache
def one_worker():
    return trained(small_cnn, DIGITS, Plan())


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_a_convolutional_network_is_the_same_however_it_is_split(split, plan):
    assert_same(trained(partial(small_cnn, split=split), DIGITS, plan), one_worker(), 1e-10)


@pytest.mark.parametrize("split", SPLITS)
def test_the_network_for_cifar_is_the_same_however_it_is_split(split):
    images = data.synthetic_images("cifar10", 40, 1)[0]
    expected = trained(models.builder("cifar-cnn"), images, Plan(), 16)
    assert_same(trained(models.builder("cifar-cnn", split=split), images, Plan(tensor=2), 16), expected, 1e-10)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("build", [small_cnn, models.cifar_cnn])
def test_blocks_and_parameters_have_the_same_names_and_shapes_however_the_network_is_split(build, split):
    def named(mesh):
        with minidl.device("meta"):
            model = build(mesh=mesh, split=split)
        return len(model), {name: p.cut.whole for name, p in model.named_parameters()}

    assert named(Mesh({"tensor": 2})) == named(None) == named(Mesh({}))


@pytest.mark.parametrize("split", ["output", "input"])
def test_a_rank_holds_its_channels_alone(split):
    with minidl.device("meta"):
        model = models.cifar_cnn(mesh=Mesh({"tensor": 4}), split=split)
    sizes = [p.numel() / np.prod(p.cut.whole) for name, p in model.named_parameters() if name.endswith("weight")]
    assert sizes == [0.25 if split == "output" else 1, 0.25, 0.25, 0.25, 1]  # three colours do not divide by 4


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no split 'rows': choose one of batch, output, input, space"):
        models.cnn(split="rows")
