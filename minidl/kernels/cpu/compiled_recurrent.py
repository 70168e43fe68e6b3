"""The cells of recurrent layers compiled by Numba, for float32; the NumPy code in recurrent.py is their reference.

Each takes one step of a batch, forward or backward. Its loops are short and name few arrays: LLVM vectorises a loop
only after proving, at run time, that its arrays do not overlap, and gives up where they are many.
"""

import numpy as np
from numba import njit

from minidl.kernels.cpu.compiled import FLAGS, ONE, OPTIONS, exp

TWO = np.float32(2)


@njit(fastmath=FLAGS, inline="always", **OPTIONS)
def tanh(x):
    return ONE - TWO / (ONE + exp(TWO * x))


@njit(fastmath=FLAGS, **OPTIONS)
def add_sigmoid(row, other, bias):
    """row = sigmoid(row + other + bias)."""
    for j in range(len(row)):
        row[j] = ONE / (ONE + exp(-(row[j] + other[j] + bias[j])))


@njit(fastmath=FLAGS, **OPTIONS)
def add_tanh(row, other, bias):
    """row = tanh(row + other + bias)."""
    for j in range(len(row)):
        row[j] = tanh(row[j] + other[j] + bias[j])


@njit(fastmath=FLAGS, **OPTIONS)
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


@njit(fastmath=FLAGS, **OPTIONS)
def lstm_cell_grad(grad, carried, gates, before, cell, grad_cell, inner):
    """grad + carried is the gradient of hidden; grad_cell in place: from that of cell to that of the one before."""
    batch, width = cell.shape
    for b in range(batch):
        row, out, c, past, dc = gates[b], inner[b], cell[b], before[b], grad_cell[b]
        i, f, g, o = row[:width], row[width : 2 * width], row[2 * width : 3 * width], row[3 * width :]
        di, df, dg, do = out[:width], out[width : 2 * width], out[2 * width : 3 * width], out[3 * width :]
        one, two = grad[b], carried[b]
        for j in range(width):
            do[j] = one[j] + two[j]
        for j in range(width):
            t = tanh(c[j])
            dc[j] += do[j] * o[j] * (ONE - t * t)
            do[j] *= t * o[j] * (ONE - o[j])
        for j in range(width):
            di[j] = dc[j] * g[j] * i[j] * (ONE - i[j])
        for j in range(width):
            dg[j] = dc[j] * i[j] * (ONE - g[j] * g[j])
        for j in range(width):
            df[j] = dc[j] * past[j] * f[j] * (ONE - f[j])
        for j in range(width):
            dc[j] *= f[j]


@njit(fastmath=FLAGS, **OPTIONS)
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


@njit(fastmath=FLAGS, **OPTIONS)
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
        also[: 2 * width] = out[: 2 * width]
