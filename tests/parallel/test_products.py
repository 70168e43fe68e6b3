"""Products split over workers give what the whole ones give, forward and backward, and communicate what they should."""

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.models.mlp import SPLITS
from minidl.nn.cut import join
from minidl.parallel import Mesh, Plan, launch, train
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.layers import ColumnParallelLinear
from minidl.parallel.mesh import Grid
from minidl.parallel.products import (
    Collect,
    Distribute,
    InnerLinear,
    RowsLinear,
    Summa,
    SummaLinear,
    blocks_of,
    grid_groups,
    squarest,
)
from minidl.parallel.runtime.steps import connect

pytestmark = pytest.mark.usefixtures("warm_workers")

RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((6, 5, 12)), RNG.standard_normal((6, 5, 18))
SIZES = (12, 24, 18)
GRIDS = [(1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (6, 1)]


def summa(mesh, rows, columns):
    splits = blocks_of(mesh, rows, columns)
    layers = [SummaLinear(*SIZES[i : i + 2], mesh, rows, columns) for i in range(2)]
    return nn.Sequential(Distribute(*splits), *layers, Collect(*splits))


def by_rows(mesh):
    group = mesh.group("tensor")
    layers = [RowsLinear(*SIZES[i : i + 2], group) for i in range(2)]
    return nn.Sequential(Distribute((group, 0)), *layers, Collect((group, 0)))


def by_columns(mesh):
    layers = [ColumnParallelLinear(*SIZES[i : i + 2], mesh.group("tensor"), gather_output=True) for i in range(2)]
    return nn.Sequential(nn.Identity(), *layers)


def by_inner(mesh):
    return nn.Sequential(nn.Identity(), *(InnerLinear(*SIZES[i : i + 2], mesh.group("tensor")) for i in range(2)))


def outcome(build, mesh, *arguments):
    """Output, input gradient, and this rank's parts of the parameters' gradients."""
    with minidl.device("meta"):
        model = build(mesh, *arguments)
    model.materialize(7, "model", np.float64)
    x = minidl.tensor(X, requires_grad=True)
    y = model(x)
    (y * minidl.tensor(TARGET)).sum().backward()
    return y.numpy(), x.grad.numpy(), {name: (p.grad.numpy(), p.cut) for name, p in model.named_parameters()}


def on_world(world, build, *arguments):
    return outcome(build, Mesh({"tensor": world.size}, world.rank, connect(world)), *arguments)


def assert_whole(found, expected):
    y, grad, whole = expected
    for ours, our_grad, _ in found:
        np.testing.assert_allclose(ours, y, rtol=1e-12)
        np.testing.assert_allclose(our_grad, grad, rtol=1e-12)
    for name, (gradient, _) in whole.items():
        for _, _, parts in found:
            part, cut = parts[name]
            np.testing.assert_allclose(part, cut.take(gradient), rtol=1e-12, err_msg=name)
        joined = join((name, *parts[name]) for _, _, parts in found)[name]
        np.testing.assert_allclose(joined, gradient, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("build", [by_rows, by_columns, by_inner])
@pytest.mark.parametrize("ranks", [2, 3])
def test_layers_split_one_way_give_the_whole_layers_output_and_gradients(build, ranks):
    assert_whole(launch(on_world, ranks, args=(build,)), outcome(build, Mesh({})))


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_layers_on_a_grid_give_the_whole_layers_output_and_gradients(rows, columns):
    expected = outcome(lambda mesh: summa(mesh, 1, 1), Mesh({}))
    assert_whole(launch(on_world, rows * columns, args=(summa, rows, columns)), expected)


def test_on_a_grid_every_rank_holds_a_block_of_the_weight_and_the_slice_of_the_bias_of_its_column():
    for rank in range(6):
        with minidl.device("meta"):
            layer = SummaLinear(12, 24, Mesh({"tensor": 6}, rank), 2, 3)
        row, column = divmod(rank, 3)
        whole = np.arange(24 * 12).reshape(24, 12)
        block = whole[8 * column : 8 * (column + 1), 6 * row : 6 * (row + 1)]
        np.testing.assert_array_equal(layer.weight.cut.take(whole), block)
        np.testing.assert_array_equal(layer.bias.cut.take(whole[:, 0]), whole[8 * column : 8 * (column + 1), 0])


def recorded(rows, columns):
    """The calls of forward and backward of one product on a grid, of 12 inputs."""
    mesh, shapes = Mesh({"tensor": rows * columns}), ((4, 12 // columns), (8, 12 // rows))
    x, weight = (minidl.Tensor(MetaArray(shape, "float64"), requires_grad=True) for shape in shapes)
    with meta.record() as forward:
        y = Summa(*grid_groups(mesh, rows, columns))(x, weight)
    with meta.record() as backward:
        y.sum().backward()
    return forward, backward


def collectives(calls):
    return [call for call in calls if isinstance(call, CollectiveCall)]


def test_a_product_on_a_grid_broadcasts_each_panel_and_reduces_as_many_sums_backward():
    forward, backward = recorded(2, 2)
    row, column = ((Grid("tensor", 2, 2, along),) for along in ("columns", "rows"))
    x, weight = 4 * 6 * 8, 8 * 6 * 8  # bytes of a panel, which is a whole block where the grid is a square
    assert collectives(forward) == 2 * [
        CollectiveCall("broadcast", row, 2, x),
        CollectiveCall("broadcast", column, 2, weight),
    ]
    assert collectives(backward) == 2 * [
        CollectiveCall("broadcast", column, 2, weight),
        CollectiveCall("reduce", row, 2, x),
    ] + 2 * [CollectiveCall("broadcast", row, 2, x), CollectiveCall("reduce", column, 2, weight)]


def test_a_grid_of_one_row_broadcasts_the_input_alone():
    forward, backward = recorded(1, 3)
    assert [(call.name, call.axes[0].along) for call in collectives(forward)] == [("broadcast", "columns")] * 3
    assert [call.name for call in collectives(backward)] == ["reduce"] * 3 + ["broadcast"] * 3


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_of_a_perceptron_does_its_share_of_the_matrix_products(split, ranks):
    def flops(ranks):
        with minidl.device("meta"):
            model = models.mlp((64, 32, 16, 32, 8), Mesh({"tensor": ranks}), split)
            x, y = model.example(8)
            with meta.record() as calls:
                nn.CrossEntropyLoss()(model(x), y).backward()
        return sum(call.flops for call in calls if isinstance(call, KernelCall) and call.kind == "product")

    assert flops(ranks) * ranks == flops(1)


TRAIN, TEST = data.digits()[0], data.Subset(data.digits()[1], range(96))  # a batch and a half

OPTIONS = dict(
    optimizer=lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9), loss=nn.CrossEntropyLoss(), batch_size=64,
    steps=3, dtype="float64", clip_norm=0.05, timeout=120,
)  # fmt: skip


def trained(split, plan, **options):
    options = OPTIONS | {"evaluate": TEST} | options
    return train(lambda mesh: models.mlp((64, 48, 24, 32, 12), mesh, split), TRAIN, plan, **options)


@pytest.fixture(scope="module")
def on_one_worker():
    return trained("column-row", Plan())


PLANS = [
    Plan(tensor=2), Plan(tensor=4), Plan(data=2, tensor=2), Plan(pipeline=2, tensor=2, micro_batches=2),
    Plan(data=2, tensor=4, sharding="optimizer"), Plan(pipeline=2, tensor=4, micro_batches=2, schedule="zero-bubble"),
    Plan(tensor=4, recompute="full"),
]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_perceptron_trains_alike_however_its_products_are_split(split, plan, on_one_worker):
    run = trained(split, plan)
    np.testing.assert_allclose(run.losses, on_one_worker.losses, rtol=1e-10)
    assert run.evaluations[-1].loss == pytest.approx(on_one_worker.evaluations[-1].loss, rel=1e-10)
    expected = on_one_worker.state_dict().values()
    for ours, theirs in zip(run.state_dict().values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("split", ["rows", "summa"])
def test_norms_of_parameters_count_what_several_ranks_hold_once(split):
    one, four = (
        trained(split, plan, optimizer=lambda parameters: optim.LAMB(parameters, lr=0.01))
        for plan in (Plan(), Plan(tensor=4))
    )
    np.testing.assert_allclose(four.losses, one.losses, rtol=1e-10)


def test_the_squarest_grid_of_some_ranks():
    assert [squarest(n) for n in (1, 2, 3, 4, 6, 8, 12, 64)] == [
        (1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 4), (8, 8),
    ]  # fmt: skip


def test_sizes_that_do_not_divide_are_refused_by_name():
    mesh = Mesh({"tensor": 6})
    with pytest.raises(ValueError, match="in_features=8 is not divisible by 6: tensor=6 is a grid of 2 × 3"):
        SummaLinear(8, 12, mesh, 2, 3)
    with pytest.raises(ValueError, match="out_features=8 is not divisible by 3: tensor=6 is a grid of 2 × 3"):
        SummaLinear(12, 8, mesh, 2, 3)
    with pytest.raises(ValueError, match="a grid of 2 × 2 does not fit tensor=6"):
        SummaLinear(12, 12, mesh, 2, 2)
    with pytest.raises(ValueError, match="a grid of 1 × 1 does not fit tensor=6"):
        SummaLinear(12, 12, mesh)
    with pytest.raises(ValueError, match="a grid of 2 × 2 does not fit tensor=1"):
        SummaLinear(12, 12, None, 2, 2)
    for split, message in {
        "columns": "out_features=10 is not divisible by tensor=4",
        "inner": "in_features=30 is not divisible by tensor=4",
        "summa": "SummaLinear: out_features=15 is not divisible by 2: tensor=4 is a grid of 2 × 2",
    }.items():
        sizes = {"columns": (64, 32, 10), "inner": (64, 30, 8), "summa": (64, 15, 8)}[split]
        with pytest.raises(ValueError, match=message):
            models.mlp(sizes, Mesh({"tensor": 4}), split)


def test_a_batch_that_does_not_divide_by_the_rows_is_refused():
    with pytest.raises(ValueError, match=r"dimension 0 of shape \(6, 64\) is not divisible by tensor=4"):
        train(lambda mesh: models.mlp((64, 8), mesh, "rows"), TRAIN, Plan(tensor=4), **OPTIONS | {"batch_size": 6})


def test_an_unknown_split_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="mlp: unknown split 'diagonal': choose one of column-row, rows, columns"):
        models.mlp((64, 8), None, "diagonal")
