"""Layers of images whose rows are split give what the whole layers give, forward and backward."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.kernels import meta
from minidl.parallel import Mesh, Plan, launch
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.prepare import prepare
from minidl.parallel.spatial import GatherRows, SpatialAvgPool2d, SpatialConv2d, SpatialMaxPool2d
from minidl.parallel.uneven import parts
from tests.parallel.split_images import assert_as_whole

pytestmark = pytest.mark.usefixtures("warm_workers")

CHANNELS = 2


@st.composite
def windows(draw, kinds=("convolution", "max", "average")):
    """A layer's class and its options."""
    kind, pair = draw(st.sampled_from(kinds)), lambda low, high: st.tuples(*[st.integers(low, high)] * 2)
    kernel, options = draw(pair(1, 4)), {"stride": draw(pair(1, 3))}
    if kind == "convolution":
        return kind, kernel, options | {"padding": draw(pair(0, 3)), "dilation": draw(pair(1, 2))}
    options |= {"padding": tuple(draw(st.integers(0, n // 2)) for n in kernel), "ceil_mode": draw(st.booleans())}
    if kind == "average":
        return kind, kernel, options | {"count_include_pad": draw(st.booleans())}
    return kind, kernel, options | {"dilation": draw(pair(1, 2))}


def layer(kind, kernel, options, rows, group, **more):
    if kind == "convolution":
        return SpatialConv2d(CHANNELS, CHANNELS, kernel, rows, group, **options, **more)
    return {"max": SpatialMaxPool2d, "average": SpatialAvgPool2d}[kind](kernel, rows, group, **options)


def height_after(chosen, shape):
    with minidl.device("meta"):
        return layer(*chosen, shape[2], None)(minidl.zeros(*shape)).shape


def chain(first, second, shape):
    """Two layers and the gathering of their rows: a function of the group. ValueError where the windows do not fit."""
    between = height_after(first, shape)
    after = height_after(second, between)

    def build(group):
        return nn.Sequential(
            layer(*first, shape[2], group, whole_input=True),
            layer(*second, between[2], group),
            GatherRows(after[2], group),
        )

    return build, min(shape[2], between[2], after[2])


@st.composite
def cases(draw):
    """A chain of two layers for images of some shape, and the smallest of the heights there."""
    shape = draw(st.integers(1, 2)), CHANNELS, draw(st.integers(4, 14)), draw(st.integers(8, 10))
    try:
        return *chain(draw(windows(["convolution"])), draw(windows()), shape), shape
    except ValueError:
        return chain(("convolution", (3, 3), {}), ("max", 2, {}), (1, CHANNELS, 12, 6)) + ((1, CHANNELS, 12, 6),)


@settings(max_examples=12)
@given(st.integers(1, 4), st.lists(cases(), min_size=1, max_size=12))
def test_rows_split_over_any_number_of_ranks_give_the_whole_layers_results_and_gradients(ranks, chosen):
    assert_as_whole(ranks, *[(build, shape) for build, smallest, shape in chosen if smallest >= ranks])


def test_a_halo_may_come_from_more_ranks_than_the_neighbours():
    def build(group):
        return nn.Sequential(
            SpatialConv2d(CHANNELS, CHANNELS, 1, 5, group, whole_input=True),
            SpatialConv2d(CHANNELS, CHANNELS, 5, 5, group, padding=2),
            GatherRows(5, group),
        )

    assert_as_whole(4, (build, (2, CHANNELS, 5, 6)))


def small_network(group):
    return nn.Sequential(
        SpatialConv2d(3, 4, 3, 13, group, padding=1, whole_input=True),
        nn.ReLU(),
        SpatialMaxPool2d(3, 13, group, stride=2, padding=1),
        SpatialConv2d(4, 2, 3, 7, group, stride=2, padding=1),
        GatherRows(4, group),
    )


def test_a_network_split_by_rows_gives_what_pytorch_gives():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    images = np.random.default_rng(0).standard_normal((2, 3, 13, 9))

    def work(group):
        with minidl.device("meta"):
            model = small_network(group)
        model.materialize(7, "model", np.float64)
        return model(minidl.tensor(images)).numpy(), model.state_dict() if group.rank == 0 else None

    (y, state), (other, _) = launch(work, 2)
    first, pool, last = (
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.Conv2d(4, 2, 3, stride=2, padding=1),
    )
    theirs = torch.nn.Sequential(first, torch.nn.ReLU(), pool, last).double()
    theirs.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in state.items()})
    np.testing.assert_allclose(y, theirs(torch.tensor(images)).detach().numpy(), rtol=1e-10)
    np.testing.assert_array_equal(y, other)


def test_a_group_of_one_makes_plain_layers_that_mark_nothing():
    group = Mesh({}).group("tensor")
    convolution = SpatialConv2d(3, 4, 3, 8, group)
    assert convolution.group is None and convolution.weight.summed_over == ()
    assert SpatialMaxPool2d(2, 8, group).group is None and GatherRows(8, group).group is None


def test_parameters_are_to_be_summed_over_the_axis_that_splits_the_rows():
    convolution = SpatialConv2d(3, 4, 3, 8, Mesh({"tensor": 2}).group("tensor"))
    assert convolution.weight.summed_over == convolution.bias.summed_over == ("tensor",)
    assert convolution.weight.cut.is_whole


def pooled(group):
    """A pool whose windows no rank has in part, of 13 rows: the last is in none."""
    return nn.Sequential(
        SpatialConv2d(3, 4, 3, 13, group, padding=1, whole_input=True, pool=2),
        nn.ReLU(),
        SpatialMaxPool2d(2, 12 if group else 13, group, uncut=True),
        SpatialConv2d(4, 2, 3, 6, group, padding=1, pool=3),
        SpatialAvgPool2d(3, 6, group, uncut=True),
        GatherRows(2, group),
    )


def test_a_convolution_may_cut_its_rows_between_the_windows_of_a_pool():
    assert_as_whole(2, (pooled, (2, 3, 13, 7)))
    *_, pool, _ = pooled(Mesh({"tensor": 2}).group("tensor"))
    assert pool.halo.owned == pool.halo.needed  # and needs nothing of its neighbour
    with pytest.raises(
        ValueError, match=r"its results have 13 rows, they need tensor=4 × 4 \(a window of the pool\) at least"
    ):
        SpatialConv2d(3, 4, 3, 13, Mesh({"tensor": 4}).group("tensor"), padding=1, pool=4)


def test_fewer_rows_than_ranks_are_refused_by_name():
    group = Mesh({"tensor": 4}).group("tensor")
    with pytest.raises(ValueError, match="SpatialConv2d: its results have 3 rows, they need tensor=4 at least"):
        SpatialConv2d(3, 4, 3, 3, group, padding=1)
    with pytest.raises(ValueError, match="SpatialConv2d: its results have 2 rows, they need tensor=4"):
        SpatialConv2d(3, 4, 7, 8, group)
    with pytest.raises(ValueError, match="SpatialConv2d: its images have 3 rows, they need tensor=4"):
        SpatialConv2d(3, 4, 1, 3, group, padding=1)
    with pytest.raises(ValueError, match="padding='same', it must be an int or two"):
        SpatialConv2d(3, 4, 3, 8, group, padding="same")


def test_the_first_rank_has_the_most_rows():
    for rows in range(1, 20):
        for size in range(1, rows + 1):
            found = parts(rows, size)
            assert [list(part) for part in found] == [list(part) for part in np.array_split(range(rows), size)]
            assert len(found[0]) == max(map(len, found))


def test_on_meta_the_exchange_of_halos_records_the_messages_of_the_first_rank():
    mesh = Mesh({"tensor": 2}, 0)
    model = build_on_meta(lambda mesh: small_network(mesh.group("tensor")), mesh, "float64")
    with meta.record() as calls:
        x = minidl.Tensor(meta.MetaArray((2, 3, 13, 9), "float64"))
        model(x).sum().backward()
    found = [c for c in calls if isinstance(c, CollectiveCall) and c.phase != "wait"]
    # Of 13 rows the first rank has 7, and its windows of the pool end in the 8th. Of the pool's 7 it has 4, and the
    # other rank's windows of the second convolution begin in the 4th. Of the gradient of the result each takes a row.
    row, between, result = (2 * width * channels * 8 for width, channels in ((9, 4), (5, 4), (3, 2)))
    forward = [("recv", row), ("send", between), ("all_gather", 4 * result)]
    backward = [("send", result), ("recv", result), ("send", row)]
    assert [(c.name, c.nbytes) for c in found] == forward + backward
    assert [c.phase for c in found if c.name != "all_gather"] == ["start"] * 5  # messages go on beside kernels
    assert {c.axes for c in found} == {("tensor",)}


@pytest.mark.parametrize(("ranks", "neighbours"), [(2, 1), (3, 2), (4, 2)])
def test_a_plan_is_priced_as_a_rank_that_has_as_many_neighbours_as_any(ranks, neighbours):
    def build(mesh):
        group = mesh.group("tensor")
        layers = [
            SpatialConv2d(3, 4, 3, 12, group, padding=1, whole_input=True),
            SpatialConv2d(4, 2, 3, 12, group, padding=1),
        ]
        return nn.Sequential(*layers, GatherRows(12, group), nn.Flatten(), nn.Linear(2 * 12 * 5, 10))

    example = np.zeros((2, 3, 12, 5), "float32"), np.zeros(2, "int64")
    profile = prepare(build, Plan(tensor=ranks), 2, example=example).profile
    calls = [c for block in profile.blocks for c in (*block.forward, *block.backward) if isinstance(c, CollectiveCall)]
    halo, gradient = (2 * 5 * channels * 4 for channels in (4, 2))  # bytes of a row, in the second convolution
    sent = [c.nbytes for c in calls if c.name == "send" and c.phase != "wait"]
    assert sent == neighbours * [halo] + neighbours * [gradient]
