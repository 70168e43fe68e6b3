"""Recurrent layers: shapes and costs, step by step as on the CPU. A transcendental function counts as 10 FLOPs."""

from minidl.kernels.meta.arrays import reshape, swap_last
from minidl.kernels.meta.products import matmul
from minidl.kernels.meta.record import MetaArray, in_place
from minidl.kernels.meta.reduction import sum as total

__all__ = ["gru", "gru_grad", "lstm", "lstm_grad", "rnn", "rnn_grad"]


def _forward(cell, flops, gates, w_hh, h0, written=0):
    """The products and cells of all steps: a cell takes `flops` for each element of a state and fills `written`."""
    step, state = MetaArray(gates.shape[1:], gates.dtype), _state(gates, w_hh)
    for t in range(gates.shape[0]):
        if t or h0 is not None:
            matmul(state, swap_last(w_hh))
        in_place(cell, step, (step, step, state), flops * state.size, (state,) * written)


def _backward(cell, flops, x, w_ih, w_hh, h0, need_x, read, written=0, biases=1):
    """The products and cells of all steps, which read `read` states and the gates, and the sums over the steps."""
    (time, batch, inputs), (rows, width) = x.shape, w_hh.shape
    step, state = MetaArray((batch, rows), x.dtype), MetaArray((batch, width), x.dtype)
    for t in range(time):
        in_place(cell, step, (step, *(state,) * read), flops * state.size, (state,) * written)
        if t or h0 is not None:
            matmul(step, w_hh)
    inner = MetaArray((time * batch, rows), x.dtype)
    grad_x = None
    if need_x:
        grad_x = reshape(matmul(inner, w_ih), x.shape)
    grad_ih = matmul(swap_last(inner), MetaArray((time * batch, inputs), x.dtype))
    later = (time if h0 is not None else time - 1) * batch
    grad_hh = matmul(swap_last(MetaArray((later, rows), x.dtype)), MetaArray((later, width), x.dtype))
    return grad_x, grad_ih, grad_hh, *(total(inner, 0, False) for _ in range(biases)), state


def _state(gates, w_hh, *time):
    return MetaArray((*time, gates.shape[1], w_hh.shape[1]), gates.dtype)


def rnn(inner, w_hh, bias, h0, nonlinearity):
    _forward("rnn_cell", 12 if nonlinearity == "tanh" else 3, inner, w_hh, h0)
    return inner


def rnn_grad(grad, x, w_ih, w_hh, h0, y, nonlinearity, need_x):
    return _backward("rnn_cell_grad", 4 if nonlinearity == "tanh" else 3, x, w_ih, w_hh, h0, need_x, read=2)


def lstm(gates, w_hh, bias, h0, c0):
    _forward("lstm_cell", 68, gates, w_hh, h0, written=2)
    time = gates.shape[0]
    return _state(gates, w_hh, time + 1), _state(gates, w_hh, time)


def lstm_grad(grad, x, w_ih, w_hh, h0, c0, y, gates, cells, need_x):
    grads = _backward("lstm_cell_grad", 34, x, w_ih, w_hh, h0, need_x, read=5, written=1)
    return *grads, MetaArray(cells.shape[1:], x.dtype)


def gru(gates, w_hh, b_hh, h0):
    _forward("gru_cell", 46, gates, w_hh, h0, written=2)
    time = gates.shape[0]
    return _state(gates, w_hh, time), _state(gates, w_hh, time)


def gru_grad(grad, x, w_ih, w_hh, h0, y, gates, parts, need_x):
    return _backward("gru_cell_grad", 18, x, w_ih, w_hh, h0, need_x, read=5, written=4, biases=2)
