"""Recurrent layers: shapes and costs, step by step as on the CPU. A transcendental function counts as 10 FLOPs."""

from minidl.kernels.meta.arrays import matmul, swap_last
from minidl.kernels.meta.record import MetaArray, in_place

__all__ = ["gru", "gru_grad", "lstm", "lstm_grad", "rnn", "rnn_grad"]


def _forward(cell, flops, gates, w_hh, h0, written=0):
    """The products and cells of all steps: a cell takes `flops` for each element of a state and fills `written`."""
    step, state = MetaArray(gates.shape[1:], gates.dtype), _state(gates, w_hh)
    for t in range(gates.shape[0]):
        if t or h0 is not None:
            matmul(state, swap_last(w_hh))
        in_place(cell, step, (step, step, state), flops * state.size, (state,) * written)


def _backward(cell, flops, gates, w_hh, h0, read, written=0):
    """The products and cells of all steps, which read `read` states and the gates."""
    step, state = MetaArray(gates.shape[1:], gates.dtype), _state(gates, w_hh)
    for t in range(gates.shape[0]):
        in_place(cell, step, (step, *(state,) * read), flops * state.size, (state,) * written)
        if t or h0 is not None:
            matmul(step, w_hh)


def _state(gates, w_hh, *time):
    return MetaArray((*time, gates.shape[1], w_hh.shape[1]), gates.dtype)


def _like(x):
    return MetaArray(x.shape, x.dtype)


def rnn(inner, w_hh, bias, h0, nonlinearity):
    _forward("rnn_cell", 12 if nonlinearity == "tanh" else 3, inner, w_hh, h0)
    return inner


def rnn_grad(grad, w_hh, h0, y, nonlinearity):
    _backward("rnn_cell_grad", 4 if nonlinearity == "tanh" else 3, y, w_hh, h0, read=2)
    return _like(y), _state(y, w_hh)


def lstm(gates, w_hh, bias, h0, c0):
    _forward("lstm_cell", 68, gates, w_hh, h0, written=2)
    time = gates.shape[0]
    return _state(gates, w_hh, time + 1), _state(gates, w_hh, time)


def lstm_grad(grad, w_hh, h0, c0, gates, cells):
    _backward("lstm_cell_grad", 34, gates, w_hh, h0, read=5, written=1)
    return _like(gates), _state(gates, w_hh), _state(gates, w_hh)


def gru(gates, w_hh, b_hh, h0):
    _forward("gru_cell", 46, gates, w_hh, h0, written=2)
    time = gates.shape[0]
    return _state(gates, w_hh, time), _state(gates, w_hh, time)


def gru_grad(grad, w_hh, h0, y, gates, parts):
    _backward("gru_cell_grad", 18, gates, w_hh, h0, read=5, written=4)
    return _like(gates), _like(gates), _state(gates, w_hh)
