"""The derivatives of recurrent cells for one element of a state: compiled for the CPU and for a GPU alike.

`one` is 1 of the type of the numbers: a plain 1 would make float64 of float32.
"""


def lstm_gradients(i, f, g, o, past, t, dh, dc, one):
    """The gradients of i, f, g, o before their nonlinearities, and of the cell before; t = tanh(cell).

    Of numbers, or of 16 at a time.
    """
    dc = dc + dh * o * (one - t * t)
    return dc * g * i * (one - i), dc * past * f * (one - f), dc * i * (one - g * g), dh * t * o * (one - o), dc * f


def gru_gradients(r, z, n, part, past, dh, one):
    """The gradients of r, z, n before their nonlinearities, of `part`, and of the state before but for w_hh's."""
    dn = dh * (one - z) * (one - n * n)
    return dn * part * r * (one - r), dh * (past - n) * z * (one - z), dn, dn * r, dh * z
