"""Split layers give what the whole ones give, forward and backward; blocks give what the whole chain gives."""

from dataclasses import replace

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.kernels import meta
from minidl.nn.cut import join
from minidl.parallel import Mesh, blocks, launch
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear

pytestmark = pytest.mark.usefixtures("warm_workers")

RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((3, 5, 8)), RNG.standard_normal((3, 5, 12))


def split_pair(group):
    up, down = ColumnParallelLinear(8, 24, group), RowParallelLinear(24, 12, group)
    return nn.Sequential(up, nn.GELU(), down)


def gathered(group):
    return ColumnParallelLinear(8, 12, group, bias=False, gather_output=True)


def in_parts(group):
    layer = ColumnParallelLinear(8, 12, group, parts=3)
    return nn.Sequential(layer, RowParallelLinear(12, 12, group, bias=False))


def outcome(build, group):
    """Output, input gradient, and this rank's parts of the parameters' gradients."""
    with minidl.device("meta"):
        model = build(group)
    model.materialize(7, "model", np.float64)
    x = minidl.tensor(X, requires_grad=True)
    y = model(x)
    (y * minidl.tensor(TARGET)).sum().backward()
    parts = {name: (p.grad.numpy(), p.cut) for name, p in model.named_parameters()}
    return y.numpy(), x.grad.numpy(), parts


def all_outcomes(group):
    return [outcome(build, group) for build in (split_pair, gathered)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_split_layers_give_the_whole_layers_output_and_gradients(ranks):
    found = launch(all_outcomes, ranks)
    for case, build in enumerate((split_pair, gathered)):
        y, grad, whole = outcome(build, None)
        for rank in range(ranks):
            ours, our_grad, _ = found[rank][case]
            np.testing.assert_allclose(ours, y, rtol=1e-12)
            np.testing.assert_allclose(our_grad, grad, rtol=1e-12)
        for name, (expected, _) in whole.items():
            joined = join((name, *found[rank][case][2][name]) for rank in range(ranks))[name]
            np.testing.assert_allclose(joined, expected, rtol=1e-12, err_msg=name)


def test_a_matrix_of_several_parts_is_split_in_each_of_them():
    def weights(group):
        with minidl.device("meta"):
            model = in_parts(group)
        model.materialize(7, "model", np.float64)
        return next(model.parameters()).numpy()

    whole = weights(None).reshape(3, 2, 2, 8)  # (part, rank, rows of a rank's part, inputs)
    for rank, part in enumerate(launch(weights, 2)):
        np.testing.assert_array_equal(part, whole[:, rank].reshape(6, 8))


def test_a_group_of_one_makes_a_plain_layer_that_communicates_nothing():
    assert outcome(split_pair, Mesh({}).group("tensor"))[2].keys() == outcome(split_pair, None)[2].keys()
    assert ColumnParallelLinear(4, 4, Mesh({}).group("tensor")).group is None


def test_sizes_that_do_not_divide_are_refused_by_name():
    group = Mesh({"tensor": 4}).group("tensor")
    with pytest.raises(ValueError, match="out_features=10 is not divisible by tensor=4"):
        ColumnParallelLinear(8, 10, group)
    with pytest.raises(ValueError, match="in_features=10 is not divisible by tensor=4"):
        RowParallelLinear(10, 8, group)
    with pytest.raises(ValueError, match="out_features=16 is not divisible by tensor=4 × 3 parts"):
        ColumnParallelLinear(8, 16, group, parts=3)


def test_on_meta_a_pair_of_split_layers_records_one_all_reduce_each_way_the_second_beside_a_product():
    mesh = Mesh({"tensor": 4}, 2)
    model = build_on_meta(lambda mesh: split_pair(mesh.group("tensor")), mesh, "float64")
    entry = meta.MetaArray((3, 5, 8), "float64")
    with meta.record() as calls:
        x = minidl.Tensor(entry, requires_grad=True)
        model(x).sum().backward()
    first, start, wait = (n for n, c in enumerate(calls) if isinstance(c, CollectiveCall))
    nbytes = 3 * 5 * 8
    assert calls[first] == CollectiveCall("all_reduce", ("tensor",), 4, nbytes * 12)
    backward = CollectiveCall("all_reduce", ("tensor",), 4, nbytes * 8, "start", 1)
    assert (calls[start], calls[wait]) == (backward, replace(backward, phase="wait"))
    assert "product" in {c.kind for c in calls[start + 1 : wait]}  # the gradient of the weight


def test_blocks_one_by_one_give_the_gradients_of_the_whole_chain():
    def chain():
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Identity(), nn.Linear(6, 12))
        model.load_state_dict(
            {n: np.random.default_rng(1).standard_normal(p.shape) for n, p in model.named_parameters()}
        )
        model.materialize(0, dtype=np.float64)
        return model

    whole, cut = chain(), chain()
    (whole(minidl.tensor(X)) * minidl.tensor(TARGET)).sum().backward()
    _, saved = blocks.forward_through(enumerate(cut.blocks), X, first_trained=0)
    gradient = blocks.backward_through(saved, TARGET)
    assert gradient is None  # nobody wants the gradient of the data
    for ours, theirs in zip(cut.parameters(), whole.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


def test_inference_keeps_nothing_and_gives_the_forward_output():
    layer = nn.Linear(8, 6)
    layer.materialize(0, dtype=np.float64)
    y, _ = blocks.forward(layer, X, False)
    np.testing.assert_array_equal(blocks.infer(layer, X), y)
    assert layer.weight.grad is None
