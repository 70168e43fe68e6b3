"""The compiled cells of LSTM and GRU give what their NumPy twins give in float64, and let no NaN disappear."""

import numpy as np
import pytest

from minidl.kernels import cpu
from minidl.kernels.cpu import fast

TIME, BATCH, WIDTH = 4, 60, 93
GATES = {"lstm": 4, "gru": 3}


def inputs(kind, dtype, wrong=0.0):
    generator = np.random.default_rng(0)
    rows = GATES[kind] * WIDTH
    shapes = (TIME, BATCH, 5), (rows, 5), (rows, WIDTH), (rows,), *[(BATCH, WIDTH)] * (2 if kind == "lstm" else 1)
    x, w_ih, w_hh, *rest = (generator.standard_normal(shape) for shape in shapes)
    gates = x @ w_ih.T
    gates[1, 5, -1] += wrong
    return [a.astype(dtype) for a in (gates, x, w_ih, w_hh / 10, *rest)]


def forward_and_backward(kind, gates, x, w_ih, w_hh, bias, *states):
    """The results, then the gradients of x, w_ih, w_hh, the biases and the states."""
    forward, backward = getattr(cpu, kind), getattr(cpu, f"{kind}_grad")
    y, kept = forward(gates, w_hh, bias, *states)
    return y, kept, *backward(np.cos(y), x, w_ih, w_hh, *states, y, gates, kept, True)


@pytest.mark.parametrize("kind", GATES)
def test_the_compiled_cells_equal_their_numpy_twins_in_float64(kind):
    assert fast.use_compiled(inputs(kind, np.float32)[0])
    found = forward_and_backward(kind, *inputs(kind, np.float32))
    exact = forward_and_backward(kind, *inputs(kind, np.float64))
    for ours, wanted in zip(found, exact, strict=True):
        assert ours.dtype == np.float32 and ours.shape == wanted.shape
        assert np.abs(ours - wanted).max() <= 5e-6 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_nan_spoils_its_own_sample_from_its_step_on_and_no_other(kind, dtype):
    y, _, grad_x, *_ = forward_and_backward(kind, *inputs(kind, dtype, wrong=np.nan))
    assert np.isnan(y[2, 5]).all() and np.isnan(grad_x[1, 5]).all()
    assert np.isfinite(y[:, :5]).all() and np.isfinite(y[0]).all() and np.isfinite(grad_x[:, 6:]).all()


@pytest.mark.parametrize("kind", GATES)
def test_infinite_gates_are_open_or_shut(kind):
    y = forward_and_backward(kind, *inputs(kind, np.float32, wrong=np.inf))[0]
    assert np.isfinite(y).all()
