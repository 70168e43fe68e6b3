"""Models split over the tensor axis of a mesh, run on meta: the work is divided, and the collectives are Megatron's."""

import pytest

import minidl
from minidl import models, nn
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall
from minidl.parallel.losses import loss_of_output
from minidl.parallel.mesh import Mesh

LAYERS = 3
LLAMA = dict(kv_heads=4, positions="rotary", feed_forward="swiglu", norm="rms", bias=False)
BUILDERS = {
    "gpt": lambda mesh: models.gpt(LAYERS, 64, 8, 96, 16, mesh),
    "llama": lambda mesh: models.gpt(LAYERS, 64, 8, 96, 16, mesh, **LLAMA),
    "mlp": lambda mesh: models.mlp((64, 32, 16, 8), mesh),
}


def profile(build, ranks):
    """The calls of forward, and of backward."""
    with minidl.device("meta"):
        model = build(Mesh({"tensor": ranks}))
        x, y = model.example(2)
        with meta.record() as forward:
            loss = loss_of_output(nn.CrossEntropyLoss(), model.blocks)(model(x), y)
        with meta.record() as backward:
            loss.backward()
    return forward, backward


def split_flops(calls):
    return sum(call.flops for call in calls if isinstance(call, KernelCall) and call.kind == "product")


def collectives(calls):
    return [call.name for call in calls if not isinstance(call, KernelCall) and call.phase != "wait"]


@pytest.mark.parametrize("name", ["gpt", "llama"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_of_a_gpt_does_its_share_of_the_matrix_products(name, ranks):
    whole, part = profile(BUILDERS[name], 1), profile(BUILDERS[name], ranks)
    for all_calls, calls in zip(whole, part, strict=True):
        assert split_flops(calls) * ranks == split_flops(all_calls)


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_a_gpt_layer_reduces_twice_forward_and_twice_backward(name):
    forward, backward = profile(BUILDERS[name], 2)
    assert collectives(forward) == ["all_reduce"] * (1 + 2 * LAYERS + 2)  # embedding, layers, the loss twice
    assert collectives(backward) == ["all_reduce"] * (1 + 2 * LAYERS)  # head, layers


def test_a_perceptron_reduces_once_a_pair_of_layers():
    forward, _ = profile(BUILDERS["mlp"], 2)
    assert collectives(forward) == ["all_reduce"]


def test_nothing_is_communicated_on_one_rank():
    assert [collectives(calls) for calls in profile(BUILDERS["gpt"], 1)] == [[], []]
