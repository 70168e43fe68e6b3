"""The profile of a model: counted as the runtime counts, measured, and the model is left as it was."""

import json

import numpy as np
import pytest

import minidl
from minidl import models, nn, optim
from minidl.kernels.meta import MetaArray
from minidl.parallel import Mesh
from minidl.parallel.block_profile import flops
from minidl.parallel.chain_profile import build_on_meta, profile_chain
from minidl.profiling import profile

COUNTS = ("parameters", "forward_flops", "backward_flops", "forward_bytes", "backward_bytes")


def quiet(model, x, **options):
    return profile(model, x, repeats=1, show=False, **options)


class Residual(nn.Module):
    """Children that are called twice, once and never, in no chain; a parameter and ops of its own."""

    def __init__(self):
        self.linear, self.drop, self.unused = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(3, 3)
        self.layers = nn.ModuleList([nn.ReLU(), nn.Sequential(nn.Linear(6, 6), nn.Tanh())])
        self.scale = nn.Parameter((6,), init=nn.init.constant(2.0))

    def forward(self, x):
        y = self.drop(self.linear(self.drop(x)))
        for layer in self.layers:
            y = layer(y)
        return x + y * self.scale


class Pair(nn.Module):
    """A child of two inputs."""

    def __init__(self):
        self.both, self.after = Both(), nn.Linear(4, 2)

    def forward(self, x):
        return self.after(self.both(x, x))


class Both(nn.Module):
    def forward(self, x, y):
        return x * y


def test_a_chain_costs_what_the_runtime_says_it_costs():
    model = models.builder("cnn-digits")()
    found = quiet(model, model.example(4)[0])
    on_meta = build_on_meta(models.builder("cnn-digits"), Mesh({}))
    target = MetaArray((4,), "int64")
    chain = profile_chain(on_meta, MetaArray((4, 1, 8, 8), "float32"), target, nn.CrossEntropyLoss(), sgd).blocks
    assert [row.forward_flops for row in found.rows] == [flops(block.forward) for block in chain]
    assert [row.backward_flops for row in found.rows] == [flops(block.backward) for block in chain]
    assert [row.kept_bytes for row in found.rows] == [block.saved_bytes for block in chain]
    assert [row.output for row in found.rows] == [block.output.shape for block in chain]


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1)


def test_a_linear_layer_by_hand():
    found = quiet(nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3, bias=False)), np.ones((4, 5), np.float32))
    first, second = found.rows
    assert (first.parameters, second.parameters) == (5 * 7 + 7, 7 * 3)
    assert (second.forward_flops, second.backward_flops) == (2 * 4 * 7 * 3, 2 * 2 * 4 * 7 * 3)
    assert second.forward_bytes == 4 * (4 * 7 + 7 * 3 + 4 * 3)
    assert (first.kept_bytes, second.kept_bytes) == (4 * 4 * 5, 4 * 4 * 7)
    assert first.output == (4, 7) and found.total.output == (4, 3)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("build", [Residual, lambda: nn.Sequential(nn.Linear(6, 6), Residual(), Residual())])
def test_the_rows_add_up_to_the_total(build, depth):
    found = quiet(build().train(), np.ones((5, 6), np.float32), depth=depth)
    opened = sum(row.kind == "(rest)" for row in found.rows)
    for count in COUNTS:
        unused = 12 * opened if count == "parameters" else 0  # of a child that has no row, as it is never called
        assert sum(getattr(row, count) for row in found.rows) + unused == getattr(found.total, count), count


def names(found):
    return [row.name for row in found.rows]


def test_rows_are_named_by_their_path_down_to_the_depth():
    model, x = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), Residual()), np.ones((5, 6), np.float32)
    assert names(quiet(model, x, depth=0)) == [""]
    assert names(quiet(model, x)) == ["0", "1"]
    inner = ["1.linear", "1.drop", "1.layers.0", "1.layers.1"]
    assert names(quiet(model, x, depth=2)) == ["0.0", "0.1", *inner, "1"]
    assert names(quiet(model, x, depth=3)) == ["0.0", "0.1", *inner[:3], "1.layers.1.0", "1.layers.1.1", "1"]
    rest = quiet(model, x, depth=2).rows[-1]
    assert (rest.kind, rest.parameters, rest.forward_flops) == ("(rest)", 6, 2 * 5 * 6)
    assert rest.kept_bytes is None and rest.forward_seconds is None


def test_a_module_whose_children_make_no_chain_of_tensors_is_one_row():
    (row,) = quiet(Pair(), np.ones((3, 4), np.float32)).rows
    assert (row.kind, row.parameters) == ("Pair", 10)


def test_a_block_that_runs_twice_is_counted_twice():
    once = quiet(nn.Sequential(nn.Dropout(0.5)), minidl.ones(5, 6).requires_grad_()).rows[0]
    twice = {row.name: row for row in quiet(Residual(), np.ones((5, 6), np.float32)).rows}["drop"]
    assert twice.forward_flops == 2 * once.forward_flops


def test_times_are_measured_on_cpu_and_not_on_meta():
    with minidl.device("meta"):
        model = models.builder("gpt3-175b")()
        counted = quiet(model, model.example(1)[0])
    assert counted.total.parameters > 174e9 and counted.total.forward_seconds is None
    model = models.builder("mlp-digits")()
    measured = quiet(model, model.example(4)[0])
    assert all(row.forward_seconds > 0 and row.backward_seconds >= 0 for row in (*measured.rows, measured.total))


def test_the_model_and_the_random_numbers_are_left_as_they_were():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), Residual()).train()
    model(minidl.ones(4, 6)).sum().backward()
    before = {name: x.numpy().copy() for name, x in model.state_dict().items()}
    held = [(p.data, p.grad.data) for p in model.parameters() if p.grad is not None]
    grads = [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]
    minidl.manual_seed(0)
    expected = minidl.rand(3).numpy()
    minidl.manual_seed(0)
    quiet(model, np.ones((4, 6), np.float32), depth=2)
    np.testing.assert_array_equal(minidl.rand(3).numpy(), expected)
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), before[name])
    after = [p for p in model.parameters() if p.grad is not None]
    assert all(p.data is data and p.grad.data is grad for p, (data, grad) in zip(after, held, strict=True))
    for p, grad in zip(after, grads, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), grad)
    assert not any(module._hooks for module in model.modules())


def test_the_table_is_printed_and_a_program_gets_numbers(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    model = models.builder("mlp-digits")()
    found = profile(model, model.example(4)[0], repeats=1)
    text, status = capsys.readouterr()
    assert text.rstrip("\n") == str(found) and status == ""
    for shown in (
        "parameters",
        "FLOPs",
        "moved",
        "kept",
        "FLOP/s",
        "1 ColumnParallelLinear",
        "4×128",
        "8,320",
        "total",
    ):
        assert shown in text
    document = json.loads(json.dumps(found.as_dict()))
    assert document["total"]["parameters"] == 8320 + 1290 and len(document["rows"]) == len(found.rows) == 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: profile(np.ones(3), np.ones(3)), TypeError, "needs a module, not a ndarray"),
        (lambda: profile(nn.ReLU(), minidl.ones(3), depth=-1), ValueError, "depth=-1"),
        (lambda: profile(nn.ReLU(), minidl.ones(3), repeats=0), ValueError, "repeats=0"),
        (lambda: profile(nn.Linear(2, 3), minidl.ones(4, 5)), ValueError, r"its last size must be 2"),
        (lambda: profile(Several(list), minidl.ones(4)), TypeError, "a flat tuple of tensors, Several gave a list"),
        (lambda: profile(Several(lambda pair: (pair,)), minidl.ones(4)), TypeError, "Several gave a tuple"),
        (lambda: profile(Several(lambda pair: ()), minidl.ones(4)), TypeError, "Several gave a tuple"),
    ],
)
def test_what_cannot_be_profiled_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Several(nn.Module):
    def __init__(self, make):
        self.make = make

    def forward(self, x):
        return self.make((x, x))


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_tuples_travel_from_block_to_block_and_the_shape_shown_is_that_of_their_first_tensor(where):
    with minidl.device(where):
        model = models.moe_gpt(2, 8, 2, 12, 6, 4, every=2)
        found = quiet(model, model.example(3)[0])
        deep = quiet(model, model.example(3)[0], depth=2)
    kinds = ["BalancedEmbedding", "Balanced", "MixtureBlock", "Balanced"]
    assert [row.kind for row in found.rows] == kinds
    assert [row.output for row in (*found.rows, found.total)] == [(3, 6, 8)] * 3 + [(3, 6, 12)] * 2
    assert "2.feed_forward" in names(deep) and "1.block" in names(deep)
    parameters = sum(p.numel() for p in model.parameters())
    assert sum(row.parameters for row in deep.rows) == found.total.parameters == parameters
