"""Recurrent layers on the device cuda against those of NumPy."""

import numpy as np
import pytest

import minidl
from minidl.kernels import cpu, for_device
from minidl.ops import recurrent

cuda = for_device("cuda")

from minidl.kernels.cuda import products  # noqa: E402

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
SIZES = [(3, 5, 7), (1, 3, 2), (2, 1, 1)]  # time, batch, width


@pytest.fixture(autouse=True)
def plain_products(monkeypatch):
    """Products by tiles, which are slow to emulate where matrices are small, have tests of their own."""

    def matmul(a, b, out=None):
        out = out or cuda.empty((a.shape[0], b.shape[1]), a.dtype)
        products.plain_product(out, a, b)
        return out

    monkeypatch.setattr(cuda.recurrent, "matmul", matmul)


def inputs(kind, sizes, dtype):
    """gates, x, w_ih, w_hh, bias and the states."""
    (time, batch, width), generator = sizes, np.random.default_rng(0)
    rows = GATES[kind] * width
    shapes = (time, batch, 5), (rows, 5), (rows, width), (rows,), *[(batch, width)] * (1 + (kind == "lstm"))
    x, w_ih, *rest = (generator.standard_normal(shape).astype(dtype) for shape in shapes)
    w_hh, *rest = rest
    return [x @ w_ih.T, x, w_ih, w_hh / 3, *rest]


def forward_and_backward(k, kind, gates, x, w_ih, w_hh, bias, states, way, need_x):
    """The results and the gates, then the gradients of x, w_ih, w_hh, the biases and the states."""
    option = (way,) if kind == "rnn" else ()
    result = getattr(k, kind)(gates, w_hh, bias, *states, *option)
    y, *kept = (result,) if kind == "rnn" else result
    kept = [gates, *kept] if kept else []
    grad = k.array(np.cos(k.to_numpy(y)), y.dtype)
    return y, *kept, *getattr(k, f"{kind}_grad")(grad, x, w_ih, w_hh, *states, y, *kept, *option, need_x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind, way", [("rnn", "tanh"), ("rnn", "relu"), ("lstm", None), ("gru", None)])
def test_sequences_and_their_gradients_are_those_of_numpy(kind, way, sizes, dtype, thread_order):
    for has_state in (True, False):
        gates, x, w_ih, w_hh, bias, *states = inputs(kind, sizes, dtype)
        given = [gates, x, w_ih, w_hh, bias]
        on_gpu = [cuda.array(x, x.dtype) for x in given]
        states_on_gpu = [cuda.array(x, x.dtype) for x in states]
        if not has_state:
            states = states_on_gpu = [None] * len(states)
        wanted = forward_and_backward(cpu, kind, *given, states, way, has_state)
        found = forward_and_backward(cuda, kind, *on_gpu, states_on_gpu, way, has_state)
        if not has_state:  # their gradients are not asked for
            wanted, found = wanted[: -len(states)], found[: -len(states)]
        for ours, theirs in zip(found, wanted, strict=True):
            if theirs is None:
                assert ours is None
                continue
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            limit = 2e-6 if dtype is np.float32 else 1e-14
            assert np.abs(cuda.to_numpy(ours) - theirs).max() <= limit * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("kind", GATES)
def test_an_empty_batch(kind):
    way = "tanh" if kind == "rnn" else None
    gates, x, w_ih, w_hh, bias, *states = inputs(kind, (3, 0, 4), np.float32)
    given = [cuda.array(a, a.dtype) for a in (gates, x, w_ih, w_hh, bias)]
    y, *_, grad_b, _ = forward_and_backward(cuda, kind, *given, [cuda.array(a, a.dtype) for a in states], way, True)[:7]
    assert y.shape[1:] == (0, 4)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_nan_spoils_its_own_sample_from_its_step_on_and_infinite_gates_are_open_or_shut(kind, wrong):
    gates, x, w_ih, w_hh, bias, *states = inputs(kind, (3, 4, 5), np.float32)
    gates[1, 2, -1] += wrong
    given = [cuda.array(a, a.dtype) for a in (gates, w_hh, bias, *states)]
    y = cuda.to_numpy(getattr(cuda, kind)(*given)[0])
    if np.isnan(wrong):
        assert np.isnan(y[2, 2]).all() and np.isfinite(y[0]).all() and np.isfinite(y[:, :2]).all()
    else:
        assert np.isfinite(y).all()


@pytest.mark.parametrize("kind", GATES)
def test_ops_give_the_cpus_gradients(kind):
    _, *arrays, bias, state = inputs(kind, (2, 2, 3), np.float32)[:6]
    arrays = [*arrays, *[bias] * (1 + (kind == "gru")), *[state] * (1 + (kind == "lstm"))]
    found = {}
    for device in ("cpu", "cuda"):
        op = {"rnn": lambda: recurrent.RNN("tanh"), "lstm": recurrent.LSTM, "gru": recurrent.GRU}[kind]()
        tensors = [minidl.tensor(a, device=device, requires_grad=True) for a in arrays]
        y = op(*tensors)
        y.backward(minidl.ones(*y.shape, device=device))
        found[device] = [y.numpy(), *(x.grad.numpy() for x in tensors)]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)
