"""Recurrent layers: what is done step by step, through a sequence, time first, and back.

The inputs' part of the gates does not wait for the step before: it is made outside, for all steps in one matrix product
(Appleyard, Kocisky and Blunsom 2016, "Optimizing Performance of Recurrent Neural Networks on GPUs", section 3). On the
way back the gradients of the weights are summed over a few steps at a time, while these are in the cache. The batch is
cut over threads, each of which goes through all steps.

Sizes: x (time, batch, inputs), gates (time, batch, gates * width), w_ih (gates * width, inputs), w_hh (gates * width,
width), biases (gates * width,), states (batch, width). A state that is None is zero, and needs no product. y: every h,
one a step. A backward gives the gradients of x (None unless `need_x`), w_ih, w_hh, the biases and the states.
"""

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.elementwise import sigmoid
from minidl.kernels.cpu.fast.threads import split, thread_rows

__all__ = ["gru", "gru_grad", "lstm", "lstm_grad", "rnn", "rnn_grad"]


OWN_THREAD = 1 << 22  # multiplications that are worth a thread of their own
BLOCK = 1 << 18  # elements of the gates' gradients that are made before they are summed: 1 MiB of float32


def _given(state, like):
    """The state, or zeros for None, as one step of `like`."""
    return np.zeros_like(like[0]) if state is None else np.ascontiguousarray(state)


def _over_batch(time, batch, w_hh, steps):
    """Call steps(part) for parts of the batch."""
    split(batch, steps, thread_rows(time * w_hh.size, OWN_THREAD))


def _backward(x, w_ih, w_hh, h0, y, need_x, step, two_parts=False):
    """What the backwards share, around step(t, part, after, from_x, from_h).

    That takes `after`, the gradient of h_t that comes from the step after by w_hh, and fills in those of the products
    of step t with x and with h, which are one array unless `two_parts`.
    -> the gradients of x, w_ih, w_hh, b_ih, b_hh, and that of h0 by w_hh.
    """
    time, batch, inputs = x.shape
    rows, width = w_hh.shape
    grad_x = np.empty(x.shape, x.dtype) if need_x else None
    carried, sums = np.zeros((batch, width), x.dtype), {}

    def steps(part):
        size, after = part.stop - part.start, carried[part]
        count = max(1, min(time, BLOCK // max(1, size * rows)))
        from_x = np.empty((count, size, rows), x.dtype)
        from_h = np.empty_like(from_x) if two_parts else from_x
        grad_ih, grad_hh = np.zeros(w_ih.shape, x.dtype), np.zeros(w_hh.shape, x.dtype)
        grad_b, grad_b_h = np.zeros(rows, x.dtype), np.zeros(rows, x.dtype)
        for stop in range(time, 0, -count):
            start = max(0, stop - count)
            for t in reversed(range(start, stop)):
                step(t, part, after, from_x[t - start], from_h[t - start])
                if t or h0 is not None:
                    np.matmul(from_h[t - start], w_hh, out=after)
            many = (stop - start) * size
            inner = from_x[: stop - start].reshape(many, rows)
            grad_ih += np.matmul(inner.T, x[start:stop, part].reshape(many, inputs))
            grad_b += inner.sum(0)
            if need_x:
                grad_x[start:stop, part] = np.matmul(inner, w_ih).reshape(stop - start, size, inputs)
            if two_parts:
                grad_b_h += from_h[: stop - start].sum((0, 1))
            first = max(1, start)  # the h before step 0 is h0
            many = (stop - first) * size
            before = y[first - 1 : stop - 1, part].reshape(many, width)
            grad_hh += np.matmul(from_h[first - start : stop - start].reshape(many, rows).T, before)
        if h0 is not None:
            grad_hh += np.matmul(from_h[0].T, h0[part])
        sums[part.start] = grad_ih, grad_hh, grad_b, grad_b_h if two_parts else grad_b

    _over_batch(time, batch, w_hh, steps)
    first, *others = (sums[start] for start in sorted(sums))
    for other in others:
        first = [np.add(a, b) for a, b in zip(first, other, strict=True)]
    return grad_x, *first, carried


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

    _over_batch(*inner.shape[:2], w_hh, steps)
    return inner


def rnn_grad(grad, x, w_ih, w_hh, h0, y, nonlinearity, need_x):
    """grad: that of y (time, batch, width) -> the gradients of x, w_ih, w_hh, the biases and h0."""

    def step(t, part, after, from_x, from_h):
        h = y[t, part]
        slope = 1 - h * h if nonlinearity == "tanh" else h > 0
        np.multiply(grad[t, part] + after, slope, out=from_x)

    grad_x, grad_ih, grad_hh, grad_b, _, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step)
    return grad_x, grad_ih, grad_hh, grad_b, grad_h0


# Long short-term memory


def lstm(gates, w_hh, bias, h0, c0):
    """Gates i, f, g, o; c_t = f c_(t-1) + i g; h_t = o tanh(c_t) (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

    -> y with the last c as one more row (time + 1, batch, width), and every c (time, batch, width). gates in place:
    from the inputs' part to what their nonlinearities give.
    """
    time, batch, width = *gates.shape[:2], w_hh.shape[1]
    y, cells = np.empty((time + 1, batch, width), gates.dtype), np.empty((time, batch, width), gates.dtype)
    weight, first = np.ascontiguousarray(w_hh.T), _given(c0, cells)
    step = fast.recurrent.lstm_cell if fast.use_compiled(gates) else _lstm_cell

    def steps(part):
        before, cell, product = None if h0 is None else h0[part], first[part], np.zeros_like(gates[0, part])
        for t in range(time):
            if before is not None:
                np.matmul(before, weight, out=product)
            step(gates[t, part], product, bias, cell, cells[t, part], y[t, part])
            before, cell = y[t, part], cells[t, part]
        y[time, part] = cell

    _over_batch(time, batch, w_hh, steps)
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


def lstm_grad(grad, x, w_ih, w_hh, h0, c0, y, gates, cells, need_x):
    """grad: that of y, gates and cells as `lstm` left them -> the gradients of x, w_ih, w_hh, the biases, h0 and c0."""
    grad, first = np.ascontiguousarray(grad), _given(c0, cells)
    grad_cell = grad[-1].copy()  # what comes from the step after
    cell_grad = fast.recurrent.lstm_cell_grad if fast.use_compiled(gates) else _lstm_cell_grad

    def step(t, part, after, from_x, from_h):
        before = cells[t - 1, part] if t else first[part]
        cell_grad(grad[t, part], after, gates[t, part], before, cells[t, part], grad_cell[part], from_x)

    grad_x, grad_ih, grad_hh, grad_b, _, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step)
    return grad_x, grad_ih, grad_hh, grad_b, grad_h0, grad_cell


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
    step = fast.recurrent.gru_cell if fast.use_compiled(gates) else _gru_cell

    def steps(part):
        before, product = first[part], np.zeros_like(gates[0, part])
        for t in range(time):
            if t or h0 is not None:
                np.matmul(before, weight, out=product)
            step(gates[t, part], product, b_hh, before, parts[t, part], y[t, part])
            before = y[t, part]

    _over_batch(time, batch, w_hh, steps)
    return y, parts


def _gru_cell(gates, product, bias, before, part, hidden):
    """As the compiled one: gates in place, results in part and hidden."""
    both = 2 * hidden.shape[1]
    gates[:, :both] = sigmoid(gates[:, :both] + product[:, :both] + bias[:both])
    r, z, n = np.split(gates, 3, axis=1)
    np.add(product[:, both:], bias[both:], out=part)
    np.tanh(n + r * part, out=n)
    np.add(n, z * (before - n), out=hidden)


def gru_grad(grad, x, w_ih, w_hh, h0, y, gates, parts, need_x):
    """grad: that of y, gates and parts as `gru` left them -> the gradients of x, w_ih, w_hh, b_ih, b_hh and h0."""
    grad, first = np.ascontiguousarray(grad), _given(h0, y)
    direct = np.zeros_like(y[0])  # what comes from the step after, but not by w_hh
    cell_grad = fast.recurrent.gru_cell_grad if fast.use_compiled(gates) else _gru_cell_grad

    def step(t, part, after, from_x, from_h):
        before = y[t - 1, part] if t else first[part]
        cell_grad(grad[t, part], after, gates[t, part], parts[t, part], before, direct[part], from_x, from_h)

    *grads, grad_h0 = _backward(x, w_ih, w_hh, h0, y, need_x, step, two_parts=True)
    return *grads, grad_h0 + direct


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
