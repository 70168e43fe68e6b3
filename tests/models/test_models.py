"""The models: shapes, builders, splitting and learning."""

import numpy as np
import pytest

import minidl
from minidl import models
from minidl.nn.cut import join
from minidl.parallel import Mesh
from tests.models.learning import digits_accuracy


def mesh(size, rank=0):
    return Mesh({"tensor": size}, rank)


def test_a_chain_has_one_child_per_block():
    with minidl.device("meta"):
        assert [type(b).__name__ for b in models.builder("gpt-tiny")()] == [
            "GPTEmbedding", *["GPTBlock"] * 4, "GPTHead"
        ]  # fmt: skip
        assert len(models.mlp((4, 8, 8, 2))) == 1 + 3 + 2


def test_the_parts_of_a_split_model_make_up_the_whole_one():
    for model in (
        lambda mesh: models.mlp((64, 32, 16, 10), mesh),
        lambda mesh: models.gpt(1, 8, 4, 12, 5, mesh),
        lambda mesh: models.gpt(1, 8, 4, 12, 5, mesh, kv_heads=2, positions="rotary", feed_forward="swiglu"),
        lambda mesh: models.bert(1, 8, 4, 12, 5, mesh),
    ):
        with minidl.device("meta"):
            whole, parts = model(None), [model(mesh(2, rank)) for rank in range(2)]
        whole.materialize(seed=0)
        for part in parts:
            part.materialize(seed=0)
        again = join((n, p.numpy(), p.cut) for part in parts for n, p in part.named_parameters())
        for n, p in whole.named_parameters():
            np.testing.assert_array_equal(again[n], p.numpy(), err_msg=n)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.gpt(1, 10, 3, 7, 4), "hidden=10 is not divisible by heads=3"),
        (lambda: models.gpt(1, 12, 3, 8, 4, mesh(2)), "heads=3 is not divisible by tensor=2"),
        (lambda: models.gpt(1, 12, 2, 7, 4, mesh(2)), "vocabulary=7 is not divisible by tensor=2"),
        (lambda: models.mlp((4, 5, 2), mesh(2)), "5 is not divisible by tensor=2"),
        (lambda: models.mlp((4,)), "input and an output"),
        (lambda: models.cnn(size=10), "divisible by 4"),
        (lambda: models.alexnet(size=62), "size=62, .* at least 63"),
        (lambda: models.vgg(12), "layers=12, there are 11, 13, 16, 19"),
        (lambda: models.vgg(size=48), "size=48, it must be divisible by 32"),
    ],
)
def test_sizes_that_cannot_work_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits"])
def test_a_small_model_reaches_95_percent_on_the_digits(name):
    minidl.manual_seed(0)
    assert digits_accuracy(models.builder(name)(), epochs=8) >= 0.95
