"""Recurrent layers give PyTorch's outputs, states and gradients, and equal the composition of their cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn, ops, random
from minidl.kernels.meta import record
from minidl.random import Scope

KINDS = ["RNN", "GRU", "LSTM"]


def arrays(*shapes):
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def flat(result):
    """The tensors in a nest of tuples."""
    return [tensor for part in result for tensor in flat(part)] if isinstance(result, tuple) else [result]


def pair(kind, *arguments, **options):
    """A layer of ours and PyTorch's with the same parameters."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    other, mine = getattr(torch.nn, kind)(*arguments, **options), getattr(nn, kind)(*arguments, **options)
    mine.load_state_dict({name: value.numpy() for name, value in other.state_dict().items()})
    return mine, other, torch


def assert_same(mine, other, torch, x, states, tolerance=1e-5):
    """Outputs and all gradients agree, for outputs weighted by random numbers."""
    inputs = [minidl.tensor(a, requires_grad=True) for a in (x, *states)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    out, expected = (
        flat(layer(first, *([tuple(rest)] if len(rest) > 1 else rest)))
        for layer, (first, *rest) in ((mine, inputs), (other, theirs))
    )
    assert len(out) == len(expected)
    weights = arrays(*(y.shape for y in out))
    sum((y * minidl.tensor(w)).sum() for y, w in zip(out, weights, strict=True)).backward()
    sum((y * torch.tensor(w)).sum() for y, w in zip(expected, weights, strict=True)).backward()
    for a, b in zip(out, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)
    parameters = dict(other.named_parameters())
    pairs = [*zip(inputs, theirs, strict=True), *((p, parameters[name]) for name, p in mine.named_parameters())]
    for a, b in pairs:
        scale = max(1, b.grad.abs().max().item())
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=tolerance, atol=tolerance * scale)


def initial(kind, shape):
    return arrays(*[shape] * (2 if kind == "LSTM" else 1))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.booleans(),
    st.booleans(), st.booleans(), st.sampled_from(["batch", "batch, states", "one", "one, states"]),
)  # fmt: skip
def test_outputs_states_and_gradients_are_those_of_pytorch(
    kind, time, batch, inputs, width, layers, bias, batch_first, bidirectional, mode
):
    mine, other, torch = pair(
        kind, inputs, width, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional
    )
    batched = "batch" in mode
    size = (batch, time) if batch_first else (time, batch)
    (x,) = arrays((*size, inputs) if batched else (time, inputs))
    count = layers * (1 + bidirectional)
    states = initial(kind, (count, batch, width) if batched else (count, width)) if "states" in mode else []
    assert_same(mine, other, torch, x, states)


def test_a_relu_network_is_that_of_pytorch():
    mine, other, torch = pair("RNN", 4, 5, 2, "relu")
    assert_same(mine, other, torch, *arrays((6, 3, 4)), [])


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_cells_give_what_pytorch_gives(kind):
    mine, other, torch = pair(kind, 9, 70)
    (x,) = arrays((5, 90, 9))  # 5 * 90 * 70 * gates: enough for the compiled cells
    assert_same(mine, other, torch, x, initial(kind, (1, 90, 70)), tolerance=1e-4)


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_cell_is_that_of_pytorch(kind, batch):
    mine, other, torch = pair(kind, 4, 5)
    assert_same(mine, other, torch, *arrays((*batch, 4)), initial(kind.removesuffix("Cell"), (*batch, 5)))
    assert_same(*pair(kind, 4, 5, bias=False), *arrays((*batch, 4)), [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_cell_step_by_step(kind):
    layer, cell = getattr(nn, kind)(4, 5), getattr(nn, f"{kind}Cell")(4, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = minidl.randn(6, 3, 4)
    state, outputs = None, []
    for t in range(6):
        state = cell(x[t], state)
        outputs.append(state[0] if kind == "LSTM" else state)
    y, last = layer(x)
    np.testing.assert_allclose(y.numpy(), ops.stack(outputs).numpy(), atol=1e-6)
    for a, b in zip(flat(last), flat(state), strict=True):
        np.testing.assert_allclose(a[0].numpy(), b.numpy(), atol=1e-6)


def test_a_last_state_that_no_one_uses_takes_no_part_in_the_gradients():
    layer = nn.LSTM(3, 4)
    _, (_, c) = layer(minidl.randn(5, 2, 3))
    c.sum().backward()
    assert all(np.isfinite(p.grad.numpy()).all() and p.grad.numpy().any() for p in layer.parameters())


def test_dropout_acts_between_layers_in_training_and_by_the_sample():
    layer = nn.GRU(3, 64, num_layers=2, dropout=0.5)
    x = minidl.randn(5, 4, 3)
    evaluated = layer.eval()(x)[0].numpy()
    plain = nn.GRU(3, 64, num_layers=2)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(evaluated, plain(x)[0].numpy())
    layer.train()

    def run(samples):
        with random.scope(Scope(0, 0, np.asarray(samples), 0)):
            return layer(x[:, samples])[0].numpy()

    whole = run([0, 1, 2, 3])
    assert np.abs(whole - evaluated).max() > 0.01
    np.testing.assert_allclose(run([2, 3]), whole[:, 2:], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_on_meta_a_layer_has_the_shapes_of_cpu_and_the_products_of_its_gates(kind):
    gates, time, batch, inputs, width = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], 5, 3, 4, 6
    with minidl.device("meta"), record() as calls:
        layer = getattr(nn, kind)(inputs, width)
        x = minidl.zeros(time, batch, inputs).requires_grad_()
        y, last = layer(x)
        forward = [call for call in calls if call.kind == "product"]
        y.sum().backward()
    assert y.shape == (time, batch, width) and all(s.shape == (1, batch, width) for s in flat(last))
    assert x.grad.shape == x.shape and all(p.grad.shape == p.shape for p in layer.parameters())
    product = 2 * batch * gates * width
    assert sum(c.flops for c in forward) == product * (time * inputs + (time - 1) * width)
    assert sum(c.flops for c in calls if c.kind == "product") == 3 * sum(c.flops for c in forward)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTM(3, 4)(minidl.ones(5, 2, 4)), r"LSTM needs x \(time, batch, 3\) or unbatched, not \(5, 2, 4\)"),
        (lambda: nn.GRU(3, 4)(minidl.ones(5, 2, 3), minidl.ones(1, 3, 4)), r"1 initial states of \(1, 2, 4\)"),
        (lambda: nn.LSTM(3, 4)(minidl.ones(5, 2, 3), (minidl.ones(1, 2, 4),)), r"2 initial states of \(1, 2, 4\)"),
        (lambda: nn.RNN(3, 4)(minidl.ones(0, 2, 3)), "rnn needs a step at least"),
        (lambda: nn.RNN(3, 4, nonlinearity="sigmoid"), "nonlinearity='sigmoid'"),
        (lambda: nn.RNN(3, 0), "hidden_size=0, it must be at least 1"),
        (lambda: nn.RNN(3, 4, dropout=1), "p=1"),
        (lambda: ops.lstm(minidl.ones(5, 2, 3), minidl.ones(8, 3), minidl.ones(16, 4)), r"w_ih has shape \(8, 3\)"),
    ],
)  # fmt: skip
def test_wrong_shapes_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("states", [(minidl.ones(1, 2, 4), None), [minidl.ones(1, 2, 4)]])
def test_states_that_are_no_tensors_are_refused(states):
    layer = (nn.LSTM if len(states) == 2 else nn.GRU)(3, 4)
    with pytest.raises(TypeError, match="initial states that are tensors"):
        layer(minidl.ones(5, 2, 3), states)


def test_the_layers_show_their_options():
    assert repr(nn.LSTM(3, 4, 2, bidirectional=True)) == "LSTM(3, 4, num_layers=2, bidirectional=True)"
    assert repr(nn.GRUCell(3, 4)) == "GRUCell(3, 4)"


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_a_cell_refuses_inputs_and_states_of_other_shapes_as_pytorch_does(kind):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    ours, theirs = getattr(nn, kind)(4, 5), getattr(torch.nn, kind)(4, 5)
    states = [(3, 5), (1, 5), (5,), (3, 6), (3, 1), (1, 3, 5), (3, 1, 1, 5), ()]
    cases = [(x, state) for x in ((3, 4), (4,)) for state in states] + [
        (x, None) for x in ((2, 3, 4), (3, 5), (1,), ())
    ]
    taken = []
    for x, state in cases:
        for layer, ones, error in ((ours, minidl.ones, ValueError), (theirs, torch.ones, Exception)):
            h = None if state is None else ones(state)
            try:
                layer(ones(x), (h, h) if kind == "LSTMCell" and h is not None else h)
            except error:
                continue
            taken.append((layer is ours, x, state))
    for mine in (True, False):
        assert [case[1:] for case in taken if case[0] is mine] == [((3, 4), (3, 5)), ((4,), (5,))]


@pytest.mark.parametrize("option", [{"bias": "False"}, {"batch_first": 0}, {"bidirectional": 1}], ids=str)
def test_a_flag_of_a_recurrent_layer_is_a_bool(option):
    with pytest.raises(TypeError, match="is no bool"):
        nn.GRU(3, 4, **option)


def test_the_state_of_a_cell_is_as_many_tensors_as_it_has():
    x, h = minidl.ones(3, 4), minidl.ones(3, 5)
    for cell, state in ((nn.LSTMCell, h), (nn.LSTMCell, (h,)), (nn.LSTMCell, (h, None)), (nn.GRUCell, (h, h))):
        with pytest.raises(TypeError, match=r"needs a state of \d tensors"):
            cell(4, 5)(x, state)
    with pytest.raises(ValueError, match="hidden_size=0"):
        nn.RNNCell(4, 0)
