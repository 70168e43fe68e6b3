"""Recurrent layers: step by step through a sequence, time first, and back.

The inputs' part of the gates is made outside, for all steps in one product, and so are the sums over the steps on the
way back (Appleyard, Kocisky and Blunsom 2016, "Optimizing Performance of Recurrent Neural Networks on GPUs", sections 3
and 4). A step is then two launches: the product of the states with w_hh, which must wait for the step before, and one
kernel for all that a cell does to its elements, where each thread has the gates of one element of the state in
registers. Neighbouring threads take neighbours of a state, so that they read neighbours of every gate.

Sizes: x (time, batch, inputs), gates (time, batch, gates * width), w_ih (gates * width, inputs), w_hh (gates * width,
width), biases (gates * width,), states (batch, width). A state that is None is zero, and needs no product. y: every h,
one a step. A backward gives the gradients of x (None unless `need_x`), w_ih, w_hh, the biases and the states.
"""

import functools
import math

from minidl.kernels import recurrent_rules
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import accumulate, assign, contiguous, copy, full, reshape, swap_last
from minidl.kernels.cuda.elementwise import add
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.products import matmul
from minidl.kernels.cuda.reduction import sum as total
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["gru", "gru_grad", "lstm", "lstm_grad", "rnn", "rnn_grad"]


# The cells: element e of a state is number j of sample e // width, and gate k of it lies at k * width + j of a row


@functools.cache
def rnn_cell(nonlinearity: str, F: type):
    f = scalar(nonlinearity, F)

    @cuda.jit
    def rnn_cell(inner, product, bias, size, width):
        """inner in place: the inputs' part, then h."""
        size, width = unsigned(size), unsigned(width)
        e, step = column(), columns()
        while e < size:
            inner[e] = f(inner[e] + product[e] + bias[unsigned(e % width)])
            e = unsigned(e + step)

    return rnn_cell


@functools.cache
def rnn_cell_grad(nonlinearity: str, F: type):
    one, zero = F(1), F(0)
    slopes = {"tanh": lambda h: one - h * h, "relu": lambda h: zero if h <= zero else one}
    slope = cuda.jit(device=True)(slopes[nonlinearity])

    @cuda.jit
    def rnn_cell_grad(grad, after, h, inner, size):
        size = unsigned(size)
        e, step = column(), columns()
        while e < size:
            inner[e] = (grad[e] + after[e]) * slope(h[e])
            e = unsigned(e + step)

    return rnn_cell_grad


@functools.cache
def lstm_cell(F: type):
    sigmoid, tanh = scalar("sigmoid", F), scalar("tanh", F)

    @cuda.jit
    def lstm_cell(gates, product, bias, before, cell, hidden, size, width):
        """gates in place; results in cell and hidden."""
        size, width = unsigned(size), unsigned(width)
        e, step = column(), columns()
        while e < size:
            j = unsigned(e % width)
            a = unsigned(e // width * 4 * width + j)
            b, c, d = unsigned(a + width), unsigned(a + 2 * width), unsigned(a + 3 * width)
            i = sigmoid(gates[a] + product[a] + bias[j])
            f = sigmoid(gates[b] + product[b] + bias[unsigned(width + j)])
            g = tanh(gates[c] + product[c] + bias[unsigned(2 * width + j)])
            o = sigmoid(gates[d] + product[d] + bias[unsigned(3 * width + j)])
            now = f * before[e] + i * g
            gates[a], gates[b], gates[c], gates[d] = i, f, g, o
            cell[e], hidden[e] = now, o * tanh(now)
            e = unsigned(e + step)

    return lstm_cell


@functools.cache
def lstm_cell_grad(F: type):
    one, tanh = F(1), scalar("tanh", F)
    gradients = cuda.jit(device=True)(recurrent_rules.lstm_gradients)

    @cuda.jit
    def lstm_cell_grad(grad, after, gates, before, cell, grad_cell, inner, size, width):
        """grad + after is the gradient of hidden; grad_cell in place: from that of cell to that of the one before."""
        size, width = unsigned(size), unsigned(width)
        e, step = column(), columns()
        while e < size:
            a = unsigned(e // width * 4 * width + e % width)
            b, c, d = unsigned(a + width), unsigned(a + 2 * width), unsigned(a + 3 * width)
            inner[a], inner[b], inner[c], inner[d], grad_cell[e] = gradients(
                gates[a], gates[b], gates[c], gates[d], before[e], tanh(cell[e]), grad[e] + after[e], grad_cell[e], one
            )
            e = unsigned(e + step)

    return lstm_cell_grad


@functools.cache
def gru_cell(F: type):
    sigmoid, tanh = scalar("sigmoid", F), scalar("tanh", F)

    @cuda.jit
    def gru_cell(gates, product, bias, before, part, hidden, size, width):
        """gates in place; results in part and hidden."""
        size, width = unsigned(size), unsigned(width)
        e, step = column(), columns()
        while e < size:
            j = unsigned(e % width)
            a = unsigned(e // width * 3 * width + j)
            b, c = unsigned(a + width), unsigned(a + 2 * width)
            r = sigmoid(gates[a] + product[a] + bias[j])
            z = sigmoid(gates[b] + product[b] + bias[unsigned(width + j)])
            p = product[c] + bias[unsigned(2 * width + j)]
            n = tanh(gates[c] + r * p)
            gates[a], gates[b], gates[c] = r, z, n
            part[e], hidden[e] = p, n + z * (before[e] - n)
            e = unsigned(e + step)

    return gru_cell


@functools.cache
def gru_cell_grad(F: type):
    one, gradients = F(1), cuda.jit(device=True)(recurrent_rules.gru_gradients)

    @cuda.jit
    def gru_cell_grad(grad, after, gates, part, before, direct, from_x, from_h, size, width):
        """grad + after + direct is the gradient of hidden; direct in place: that of the state before, but for
        w_hh's."""
        size, width = unsigned(size), unsigned(width)
        e, step = column(), columns()
        while e < size:
            a = unsigned(e // width * 3 * width + e % width)
            b, c = unsigned(a + width), unsigned(a + 2 * width)
            dr, dz, dn, product, direct[e] = gradients(
                gates[a], gates[b], gates[c], part[e], before[e], grad[e] + after[e] + direct[e], one
            )
            from_x[a], from_x[b], from_x[c] = dr, dz, dn
            from_h[a], from_h[b], from_h[c] = dr, dz, product
            e = unsigned(e + step)

    return gru_cell_grad


# The steps


def _run(cell, state: CudaArray, *arguments) -> None:
    """Launch a cell with a thread for each element of a state."""
    if state.size:
        launch(cell, over(state.size), THREADS, *arguments)


def _step(x: CudaArray, start: int, stop: int | None = None) -> CudaArray:
    """x[start], or x[start:stop], of a contiguous x."""
    shape = x.shape[1:] if stop is None else (stop - start, *x.shape[1:])
    return x.view(shape, None, start * math.prod(x.shape[1:]) if x.size else 0)


def _zeros(shape: tuple[int, ...], like: CudaArray) -> CudaArray:
    return full(shape, 0, like.dtype)


def _state(state: CudaArray | None, gates: CudaArray, w_hh: CudaArray) -> CudaArray:
    return _zeros((gates.shape[1], w_hh.shape[1]), gates) if state is None else contiguous(state)


def _forward(gates, w_hh, h0, y, step) -> CudaArray:
    """Call step(t, gates_t, product) for every step, product being h_(t-1) w_hh^T -> the gates, in place.

    y: where step puts h_t.
    """
    rows = contiguous(gates)
    weight, product = swap_last(w_hh), _zeros(gates.shape[1:], gates)
    for t in range(gates.shape[0]):
        if t or h0 is not None:
            matmul(_step(y, t - 1) if t else h0, weight, product)
        step(t, _step(rows, t), product)
    if rows is not gates:
        assign(gates, rows)
    return gates


def _backward(x, w_ih, w_hh, h0, y, need_x, step, two_parts=False):
    """What the backwards share, around step(t, after, from_x, from_h).

    That takes `after`, the gradient of h_t that comes from the step after by w_hh, and fills in those of the products
    of step t with x and with h, which are one array unless `two_parts`.
    -> the gradients of x, w_ih, w_hh, b_ih, b_hh, and that of h0 by w_hh.
    """
    time, batch, inputs = x.shape
    rows, width = w_hh.shape
    from_x = CudaArray((time, batch, rows), x.dtype)
    from_h = CudaArray(from_x.shape, x.dtype) if two_parts else from_x
    after = _zeros((batch, width), x)
    for t in reversed(range(time)):
        step(t, after, _step(from_x, t), _step(from_h, t))
        if t or h0 is not None:
            matmul(_step(from_h, t), w_hh, after)
    inner, outer = (reshape(part, (time * batch, rows)) for part in (from_x, from_h))
    grad_x = reshape(matmul(inner, w_ih), x.shape) if need_x else None
    grad_ih = matmul(swap_last(inner), reshape(x, (time * batch, inputs)))
    many = (time - 1) * batch  # states before the steps, but for h0
    grad_hh = matmul(
        swap_last(outer.view((many, rows), None, batch * rows if many else 0)),
        reshape(_step(contiguous(y), 0, time - 1), (many, width)),
    )
    if h0 is not None:
        accumulate(grad_hh, matmul(swap_last(_step(from_h, 0)), h0))
    grad_b = total(inner, 0, False)
    return grad_x, grad_ih, grad_hh, grad_b, total(outer, 0, False) if two_parts else grad_b, after


# Elman's network


def rnn(inner, w_hh, bias, h0, nonlinearity):
    """h_t = nonlinearity(inner_t + h_(t-1) w_hh^T + bias), "tanh" or "relu" -> y, in place of inner (Elman 1990)."""
    y, bias, width = contiguous(inner), contiguous(bias), w_hh.shape[1]
    cell = rnn_cell(nonlinearity, inner.dtype.type)

    def step(t, h, product):
        _run(cell, h, h, product, bias, h.size, width)

    return _forward(y, w_hh, h0, y, step)


def rnn_grad(grad, x, w_ih, w_hh, h0, y, nonlinearity, need_x):
    grad, y, cell = contiguous(grad), contiguous(y), rnn_cell_grad(nonlinearity, x.dtype.type)

    def step(t, after, from_x, from_h):
        _run(cell, after, _step(grad, t), after, _step(y, t), from_x, after.size)

    grad_x, grad_ih, grad_hh, grad_b, _, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step)
    return grad_x, grad_ih, grad_hh, grad_b, grad_h0


# Long short-term memory


def lstm(gates, w_hh, bias, h0, c0):
    """Gates i, f, g, o; c_t = f c_(t-1) + i g; h_t = o tanh(c_t) (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    -> y with the last c as one more row (time + 1, batch, width), and every c (time, batch, width). gates in place:
    from the inputs' part to what their nonlinearities give.
    """
    (time, batch), width = gates.shape[:2], w_hh.shape[1]
    y, cells = (CudaArray((n, batch, width), gates.dtype) for n in (time + 1, time))
    first, bias, cell = _state(c0, gates, w_hh), contiguous(bias), lstm_cell(gates.dtype.type)

    def step(t, row, product):
        before, now = _step(cells, t - 1) if t else first, _step(cells, t)
        _run(cell, now, row, product, bias, before, now, _step(y, t), now.size, width)

    _forward(gates, w_hh, h0, y, step)
    assign(_step(y, time), _step(cells, time - 1) if time else first)
    return y, cells


def lstm_grad(grad, x, w_ih, w_hh, h0, c0, y, gates, cells, need_x):
    grad, gates, cells = contiguous(grad), contiguous(gates), contiguous(cells)
    grad_cell = copy(_step(grad, x.shape[0]))  # what comes from the step after
    first, cell, width = _state(c0, gates, w_hh), lstm_cell_grad(x.dtype.type), w_hh.shape[1]

    def step(t, after, from_x, from_h):
        before = _step(cells, t - 1) if t else first
        given = _step(grad, t), after, _step(gates, t), before, _step(cells, t), grad_cell, from_x
        _run(cell, after, *given, after.size, width)

    grad_x, grad_ih, grad_hh, grad_b, _, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step)
    return grad_x, grad_ih, grad_hh, grad_b, grad_h0, grad_cell


# Gated recurrent unit


def gru(gates, w_hh, b_hh, h0):
    """Gates r, z and n = tanh(gates + r * part); h_t = (1 - z) n + z h_(t-1) (Cho et al. 2014, with PyTorch's n).

    -> y, and every part (time, batch, width): that of n which comes from h_(t-1). gates in place, from the inputs' part
    to what their nonlinearities give.
    """
    shape = *gates.shape[:2], w_hh.shape[1]
    y, parts = CudaArray(shape, gates.dtype), CudaArray(shape, gates.dtype)
    first, b_hh, cell = _state(h0, gates, w_hh), contiguous(b_hh), gru_cell(gates.dtype.type)

    def step(t, row, product):
        before, now = _step(y, t - 1) if t else first, _step(y, t)
        _run(cell, now, row, product, b_hh, before, _step(parts, t), now, now.size, shape[2])

    _forward(gates, w_hh, h0, y, step)
    return y, parts


def gru_grad(grad, x, w_ih, w_hh, h0, y, gates, parts, need_x):
    grad, y, gates, parts = contiguous(grad), contiguous(y), contiguous(gates), contiguous(parts)
    first, cell, width = _state(h0, gates, w_hh), gru_cell_grad(x.dtype.type), w_hh.shape[1]
    direct = _zeros(first.shape, x)  # what comes from the step after, but not by w_hh

    def step(t, after, from_x, from_h):
        before = _step(y, t - 1) if t else first
        given = _step(grad, t), after, _step(gates, t), _step(parts, t), before, direct, from_x, from_h
        _run(cell, after, *given, after.size, width)

    *grads, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step, two_parts=True)
    return *grads, add(grad_h0, direct)
