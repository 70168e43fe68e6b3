"""Convolutions split by channels or by the batch give what the whole ones give, forward and backward."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.kernels import meta
from minidl.parallel import Mesh, launch
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.convolution import (
    BatchParallelConv2d,
    ColumnParallelConv2d,
    GatherBatch,
    GatherChannels,
    RowParallelConv2d,
)
from minidl.parallel.handle import CollectiveCall
from tests.parallel.split_images import assert_as_whole

pytestmark = pytest.mark.usefixtures("warm_workers")


def pair(group, channels=4, kernel=3, **options):
    return nn.Sequential(
        ColumnParallelConv2d(3, channels, kernel, group, **options),
        nn.ReLU(),
        RowParallelConv2d(channels, channels, kernel, group, **options),
    )


def gathered(group, channels=4, kernel=3, **options):
    return nn.Sequential(
        ColumnParallelConv2d(3, channels, kernel, group, bias=False, **options),
        GatherChannels(group),
        ColumnParallelConv2d(channels, channels, kernel, group, gather_output=True, **options),
    )


def scattered(group, channels=4, kernel=3, **options):
    return nn.Sequential(
        nn.Conv2d(3, channels, kernel, **options),
        RowParallelConv2d(channels, 2 * channels, kernel, group, scatter_output=True, whole_input=True, **options),
        nn.MaxPool2d(2),
        RowParallelConv2d(2 * channels, channels, 1, group, bias=False, scatter_output=True),
        GatherChannels(group),
    )


def by_batch(group, channels=4, kernel=3, **options):
    return nn.Sequential(
        BatchParallelConv2d(3, channels, kernel, group, whole_input=True, **options),
        nn.ReLU(),
        BatchParallelConv2d(channels, 2, 1, group),
        GatherBatch(group),
    )


@st.composite
def cases(draw, ranks):
    build, sizes = draw(st.sampled_from([pair, gathered, scattered, by_batch])), st.tuples(*[st.integers(1, 3)] * 2)
    channels, kernel, stride = ranks * draw(st.integers(1, 2)), draw(sizes), draw(st.integers(1, 2))
    options = {"stride": stride, "dilation": draw(st.integers(1, 2)), "padding": draw(st.integers(2, 4))}
    shape = draw(st.integers(1, 5)), 3, draw(st.integers(9, 12)), draw(st.integers(9, 12))
    return lambda group: build(group, channels, kernel, **options), shape


CHOSEN = st.integers(1, 4).flatmap(lambda ranks: st.tuples(st.just(ranks), st.lists(cases(ranks), max_size=10)))


@settings(max_examples=12)
@given(CHOSEN)
def test_convolutions_split_by_channels_or_batch_give_the_whole_ones_results_and_gradients(chosen):
    ranks, some = chosen
    assert_as_whole(ranks, *some)


def test_a_padding_that_keeps_the_size_may_be_named():
    assert_as_whole(
        2, *[(lambda group, b=b: b(group, kernel=2, padding="same"), (2, 3, 5, 4)) for b in (pair, gathered)]
    )


def test_a_split_pair_gives_what_pytorch_gives():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    images = np.random.default_rng(0).standard_normal((2, 3, 9, 8))

    def made(group):
        with minidl.device("meta"):
            model = pair(group)
        model.materialize(7, "model", np.float64)
        return model

    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3)).double()
    theirs.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in made(None).state_dict().items()})
    for y in launch(lambda group: made(group)(minidl.tensor(images)).numpy(), 2):
        np.testing.assert_allclose(y, theirs(torch.tensor(images)).detach().numpy(), rtol=1e-10)


def test_a_group_of_one_makes_plain_convolutions():
    group = Mesh({}).group("tensor")
    for cls in (ColumnParallelConv2d, RowParallelConv2d, BatchParallelConv2d):
        layer = cls(4, 4, 3, group)
        assert layer.group is None and layer.weight.cut.is_whole and layer.weight.summed_over == ()


def test_channels_that_do_not_divide_are_refused_by_name():
    group = Mesh({"tensor": 4}).group("tensor")
    with pytest.raises(ValueError, match="ColumnParallelConv2d: out_channels=10 is not divisible by tensor=4"):
        ColumnParallelConv2d(8, 10, 3, group)
    with pytest.raises(ValueError, match="RowParallelConv2d: in_channels=3 is not divisible by tensor=4"):
        RowParallelConv2d(3, 8, 3, group)
    with pytest.raises(ValueError, match="RowParallelConv2d: out_channels=6 is not divisible by tensor=4"):
        RowParallelConv2d(8, 6, 3, group, scatter_output=True)


def test_parameters_split_by_batch_are_to_be_summed_over_its_axis():
    layer = BatchParallelConv2d(3, 4, 3, Mesh({"tensor": 2}).group("tensor"))
    assert layer.weight.summed_over == layer.bias.summed_over == ("tensor",) and layer.weight.cut.is_whole


def recorded(build):
    """The collectives of a forward and a backward of images (6, 3, 8, 8) of float64 on the first of two ranks."""
    mesh = Mesh({"tensor": 2})
    model = build_on_meta(lambda mesh: build(mesh.group("tensor")), mesh, "float64")
    with meta.record() as calls:
        x = minidl.Tensor(meta.MetaArray((6, 3, 8, 8), "float64"), requires_grad=True)
        model(x).sum().backward()
    found = [c for c in calls if isinstance(c, CollectiveCall) and c.phase != "wait"]
    assert {c.axes for c in found} == {("tensor",)}
    return [(c.name, c.nbytes) for c in found]


def test_on_meta_the_collectives_of_each_split_are_recorded():
    image = 6 * 8 * 8 * 8  # batch × height × width × bytes of one channel
    same = {"padding": 1}
    assert recorded(lambda group: pair(group, **same)) == [("all_reduce", 4 * image), ("all_reduce", 3 * image)]
    assert recorded(lambda group: gathered(group, **same)) == [
        ("all_gather", 4 * image),
        ("all_gather", 4 * image),
        ("all_reduce", 4 * image),
        ("all_reduce", 3 * image),
    ]
    pooled = image // 4
    assert recorded(lambda group: scattered(group, **same)) == [
        ("reduce_scatter", 8 * image),
        ("reduce_scatter", 4 * pooled),
        ("all_gather", 4 * pooled),
        ("all_gather", 4 * pooled),
        ("all_gather", 8 * image),
        ("all_gather", 4 * image),
    ]
    sizes = 2 * 8
    assert recorded(lambda group: by_batch(group, **same)) == [
        ("all_gather", sizes),
        ("all_gather", 2 * image),
        ("all_gather", 3 * image),
    ]
