"""The cells of recurrent layers compiled by Numba, for float32; the NumPy code in recurrent.py is their reference.

Each takes one step of a batch, forward or backward. Loops are short and name few arrays, or go by vectors: LLVM
vectorises a loop only after proving, at run time, that its arrays do not overlap, and gives up where they are many.
"""

import numpy as np

from minidl.kernels import recurrent_rules
from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE, exp
from minidl.kernels.cpu.fast.vectors import WIDTH, fill, load, store

TWO = np.float32(2)


@njit(fastmath=FLAGS, inline="always")
def tanh(x):
    return ONE - TWO / (ONE + exp(TWO * x))


@njit(fastmath=FLAGS)
def add_sigmoid(row, other, bias):
    """row = sigmoid(row + other + bias)."""
    for j in range(len(row)):
        row[j] = ONE / (ONE + exp(-(row[j] + other[j] + bias[j])))


@njit(fastmath=FLAGS)
def add_tanh(row, other, bias):
    """row = tanh(row + other + bias)."""
    for j in range(len(row)):
        row[j] = tanh(row[j] + other[j] + bias[j])


@njit(fastmath=FLAGS)
def lstm_cell(gates, product, bias, before, cell, hidden):
    """gates, product (batch, 4 * width), bias (4 * width,), before, cell, hidden (batch, width); gates in place."""
    batch, width = cell.shape
    for b in range(batch):
        row, other, c, h = gates[b], product[b], cell[b], hidden[b]
        add_sigmoid(row[: 2 * width], other[: 2 * width], bias[: 2 * width])
        add_tanh(row[2 * width : 3 * width], other[2 * width : 3 * width], bias[2 * width : 3 * width])
        add_sigmoid(row[3 * width :], other[3 * width :], bias[3 * width :])
        i, f, g, o = row[:width], row[width : 2 * width], row[2 * width : 3 * width], row[3 * width :]
        past = before[b]
        for j in range(width):
            c[j] = f[j] * past[j] + i[j] * g[j]
        for j in range(width):
            h[j] = o[j] * tanh(c[j])


lstm_gradients = njit()(recurrent_rules.lstm_gradients)


@njit(fastmath=FLAGS)
def fill_tanh(x, y):
    for j in range(len(x)):
        y[j] = tanh(x[j])


@njit()
def lstm_cell_grad(grad, carried, gates, before, cell, grad_cell, inner):
    """grad + carried is the gradient of hidden; grad_cell in place: from that of cell to that of the one before."""
    batch, width = cell.shape
    t, ones, even = np.empty(width, np.float32), fill(ONE), width - width % WIDTH
    for b in range(batch):
        fill_tanh(cell[b], t)
        for j in range(0, even, WIDTH):
            at, row = b * width + j, 4 * b * width + j
            results = lstm_gradients(
                load(gates, row), load(gates, row + width), load(gates, row + 2 * width), load(gates, row + 3 * width),
                load(before, at), load(t, j), load(grad, at) + load(carried, at), load(grad_cell, at), ones,
            )  # fmt: skip
            store(inner, row, results[0])
            store(inner, row + width, results[1])
            store(inner, row + 2 * width, results[2])
            store(inner, row + 3 * width, results[3])
            store(grad_cell, at, results[4])
        gate, out = gates[b].reshape(4, width), inner[b].reshape(4, width)
        for j in range(even, width):
            dh, dc = grad[b, j] + carried[b, j], grad_cell[b, j]
            out[0, j], out[1, j], out[2, j], out[3, j], grad_cell[b, j] = lstm_gradients(
                gate[0, j], gate[1, j], gate[2, j], gate[3, j], before[b, j], t[j], dh, dc, ONE
            )


@njit(fastmath=FLAGS)
def gru_cell(gates, product, bias, before, part, hidden):
    """gates, product (batch, 3 * width), bias (3 * width,), before, part, hidden (batch, width); gates in place."""
    batch, width = hidden.shape
    for b in range(batch):
        row, other, past, p, h = gates[b], product[b], before[b], part[b], hidden[b]
        add_sigmoid(row[: 2 * width], other[: 2 * width], bias[: 2 * width])
        r, z, n = row[:width], row[width : 2 * width], row[2 * width :]
        last, offset = other[2 * width :], bias[2 * width :]
        for j in range(width):
            p[j] = last[j] + offset[j]
        for j in range(width):
            n[j] = tanh(n[j] + r[j] * p[j])
        for j in range(width):
            h[j] = n[j] + z[j] * (past[j] - n[j])


@njit(fastmath=FLAGS)
def gru_cell_grad(grad, carried, gates, part, before, direct, from_x, from_h):
    """grad + carried + direct is the gradient of hidden; direct in place: that of the state before, but for w_hh's."""
    batch, width = part.shape
    for b in range(batch):
        row, out, also, one, two, past, p, d = (
            gates[b], from_x[b], from_h[b], grad[b], carried[b], before[b], part[b], direct[b]
        )  # fmt: skip
        r, z, n = row[:width], row[width : 2 * width], row[2 * width :]
        dr, dz, dn, product = out[:width], out[width : 2 * width], out[2 * width :], also[2 * width :]
        for j in range(width):
            d[j] += one[j] + two[j]
        for j in range(width):
            dn[j] = d[j] * (ONE - z[j]) * (ONE - n[j] * n[j])
        for j in range(width):
            dz[j] = d[j] * (past[j] - n[j]) * z[j] * (ONE - z[j])
        for j in range(width):
            dr[j] = dn[j] * p[j] * r[j] * (ONE - r[j])
        for j in range(width):
            product[j] = dn[j] * r[j]
        for j in range(width):
            d[j] *= z[j]
        for j in range(2 * width):  # a slice would be copied as fast, but takes Numba seconds to compile
            also[j] = out[j]
