"""Recurrent layers: what is done step by step, through a sequence, time first, and back.

What does not wait for the step before is done outside, for all steps in one matrix product: the inputs' part of the
gates, and the gradients of the inputs and of both weights (Appleyard, Kocisky and Blunsom 2016, "Optimizing Performance
of Recurrent Neural Networks on GPUs", section 3). The batch is cut over threads, each of which goes through all steps.

Sizes: gates (time, batch, gates * width), w_hh (gates * width, width), biases (gates * width,), states (batch, width).
A state that is None is zero, and needs no product. y: every h, one a step.
"""

import numpy as np

from minidl.kernels.cpu.blocks import compiled_recurrent, use_compiled
from minidl.kernels.cpu.elementwise import sigmoid
from minidl.kernels.cpu.threads import split

__all__ = ["gru", "gru_grad", "lstm", "lstm_grad", "rnn", "rnn_grad"]


OWN_THREAD = 1 << 22  # multiplications that are worth a thread of their own


def _given(state, like):
    """The state, or zeros for None, as one step of `like`."""
    return np.zeros_like(like[0]) if state is None else np.ascontiguousarray(state)


def _over_batch(gates, w_hh, steps):
    """Call steps(part) for parts of the batch."""
    time, batch, _ = gates.shape
    split(batch, steps, -(-OWN_THREAD // (time * w_hh.size)))


# Elman's network


def rnn(inner, w_hh, bias, h0, nonlinearity):
    """h_t = nonlinearity(inner_t + h_(t-1) w_hh^T + bias), "tanh" or "relu" -> y, in place of inner (Elman 1990)."""
    weight = np.ascontiguousarray(w_hh.T)

    def steps(part):
        before = None if h0 is None else h0[part]
        for h in inner[:, part]:
            h += bias
            if before is not None:
                h += np.matmul(before, weight)
            np.tanh(h, out=h) if nonlinearity == "tanh" else np.maximum(h, 0, out=h)
            before = h

    _over_batch(inner, w_hh, steps)
    return inner


def rnn_grad(grad, w_hh, h0, y, nonlinearity):
    """The gradients of inner (which is that of the products and of the bias too) and of h0."""
    inner, carried = np.empty_like(y), np.zeros_like(y[0])  # carried: what comes from the step after

    def steps(part):
        for t in reversed(range(len(y))):
            h = y[t, part]
            slope = 1 - h * h if nonlinearity == "tanh" else h > 0
            np.multiply(grad[t, part] + carried[part], slope, out=inner[t, part])
            if t or h0 is not None:
                np.matmul(inner[t, part], w_hh, out=carried[part])

    _over_batch(y, w_hh, steps)
    return inner, carried


# Long short-term memory


def lstm(gates, w_hh, bias, h0, c0):
    """Gates i, f, g, o; c_t = f c_(t-1) + i g; h_t = o tanh(c_t) (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    -> y with the last c as one more row (time + 1, batch, width), and every c (time, batch, width). gates in place:
    from the inputs' part to what their nonlinearities give.
    """
    time, batch, width = *gates.shape[:2], w_hh.shape[1]
    y, cells = np.empty((time + 1, batch, width), gates.dtype), np.empty((time, batch, width), gates.dtype)
    weight, first = np.ascontiguousarray(w_hh.T), _given(c0, cells)
    step = compiled_recurrent().lstm_cell if use_compiled(gates) else _lstm_cell

    def steps(part):
        before, cell, product = None if h0 is None else h0[part], first[part], np.zeros_like(gates[0, part])
        for t in range(time):
            if before is not None:
                np.matmul(before, weight, out=product)
            step(gates[t, part], product, bias, cell, cells[t, part], y[t, part])
            before, cell = y[t, part], cells[t, part]
        y[time, part] = cell

    _over_batch(gates, w_hh, steps)
    return y, cells


def _lstm_cell(gates, product, bias, before, cell, hidden):
    """As the compiled one: gates in place, results in cell and hidden."""
    gates += product
    gates += bias
    i, f, g, o = np.split(gates, 4, axis=1)
    for gate in i, f, o:
        gate[...] = sigmoid(gate)
    np.tanh(g, out=g)
    np.add(f * before, i * g, out=cell)
    np.multiply(o, np.tanh(cell), out=hidden)


def lstm_grad(grad, w_hh, h0, c0, gates, cells):
    """The gradients of the inputs' part of the gates (those of the products and of the bias too), of h0 and of c0."""
    grad, first = np.ascontiguousarray(grad), _given(c0, cells)
    inner = np.empty_like(gates)
    carried, grad_cell = np.zeros_like(cells[0]), grad[-1].copy()  # what comes from the step after
    step = compiled_recurrent().lstm_cell_grad if use_compiled(gates) else _lstm_cell_grad

    def steps(part):
        after, after_cell = carried[part], grad_cell[part]
        for t in reversed(range(len(gates))):
            before = cells[t - 1, part] if t else first[part]
            step(grad[t, part], after, gates[t, part], before, cells[t, part], after_cell, inner[t, part])
            if t or h0 is not None:
                np.matmul(inner[t, part], w_hh, out=after)

    _over_batch(gates, w_hh, steps)
    return inner, carried, grad_cell


def _lstm_cell_grad(grad, carried, gates, before, cell, grad_cell, inner):
    """grad + carried is the gradient of h_t; grad_cell in place: of c_t from the step after, then of c_(t-1)."""
    i, f, g, o = np.split(gates, 4, axis=1)
    di, df, dg, do = np.split(inner, 4, axis=1)
    grad_hidden, squashed = grad + carried, np.tanh(cell)
    grad_cell += grad_hidden * o * (1 - squashed * squashed)
    np.multiply(grad_cell * g, i * (1 - i), out=di)
    np.multiply(grad_cell * before, f * (1 - f), out=df)
    np.multiply(grad_cell * i, 1 - g * g, out=dg)
    np.multiply(grad_hidden * squashed, o * (1 - o), out=do)
    grad_cell *= f


# Gated recurrent unit


def gru(gates, w_hh, b_hh, h0):
    """Gates r, z and n = tanh(gates + r * part); h_t = (1 - z) n + z h_(t-1) (Cho et al. 2014, with PyTorch's n).

    -> y, and every part (time, batch, width): that of n which comes from h_(t-1). gates in place, from the inputs' part
    to what their nonlinearities give.
    """
    time, batch, width = *gates.shape[:2], w_hh.shape[1]
    y, parts = np.empty((time, batch, width), gates.dtype), np.empty((time, batch, width), gates.dtype)
    weight, first = np.ascontiguousarray(w_hh.T), _given(h0, y)
    step = compiled_recurrent().gru_cell if use_compiled(gates) else _gru_cell

    def steps(part):
        before, product = first[part], np.zeros_like(gates[0, part])
        for t in range(time):
            if t or h0 is not None:
                np.matmul(before, weight, out=product)
            step(gates[t, part], product, b_hh, before, parts[t, part], y[t, part])
            before = y[t, part]

    _over_batch(gates, w_hh, steps)
    return y, parts


def _gru_cell(gates, product, bias, before, part, hidden):
    """As the compiled one: gates in place, results in part and hidden."""
    both = 2 * hidden.shape[1]
    gates[:, :both] = sigmoid(gates[:, :both] + product[:, :both] + bias[:both])
    r, z, n = np.split(gates, 3, axis=1)
    np.add(product[:, both:], bias[both:], out=part)
    np.tanh(n + r * part, out=n)
    np.add(n, z * (before - n), out=hidden)


def gru_grad(grad, w_hh, h0, y, gates, parts):
    """The gradients of the inputs' part of the gates, of the product with h (that of b_hh too), and of h0."""
    grad, first = np.ascontiguousarray(grad), _given(h0, y)
    from_x, from_h = np.empty_like(gates), np.empty_like(gates)
    carried, direct = np.zeros_like(y[0]), np.zeros_like(y[0])  # what comes from the step after, by w_hh and beside it
    step = compiled_recurrent().gru_cell_grad if use_compiled(gates) else _gru_cell_grad

    def steps(part):
        after, beside = carried[part], direct[part]
        for t in reversed(range(len(y))):
            before = y[t - 1, part] if t else first[part]
            inner = from_x[t, part], from_h[t, part]
            step(grad[t, part], after, gates[t, part], parts[t, part], before, beside, *inner)
            if t or h0 is not None:
                np.matmul(inner[1], w_hh, out=after)

    _over_batch(gates, w_hh, steps)
    return from_x, from_h, carried + direct


def _gru_cell_grad(grad, carried, gates, part, before, direct, from_x, from_h):
    """grad + carried + direct is the gradient of h_t; direct in place: that of h_(t-1) but for what goes by w_hh."""
    r, z, n = np.split(gates, 3, axis=1)
    dr, dz, dn = np.split(from_x, 3, axis=1)
    grad_hidden = grad + carried + direct
    np.multiply(grad_hidden * (1 - z), 1 - n * n, out=dn)
    np.multiply(grad_hidden * (before - n), z * (1 - z), out=dz)
    np.multiply(dn * part, r * (1 - r), out=dr)
    from_h[:] = from_x
    from_h[:, 2 * before.shape[1] :] *= r
    np.multiply(grad_hidden, z, out=direct)
