"""The cross-entropy of losses.py compiled by Numba, for float32."""

import numpy as np

from minidl.kernels.cpu.compiled import ONE, exp, largest
from minidl.kernels.cpu.compiling import FLAGS, njit


@njit(fastmath=FLAGS)
def cross_entropy(logits, target, probabilities, losses):
    """logits, probabilities (rows, classes), target, losses (rows,)."""
    for i in range(len(logits)):
        row, out = logits[i], probabilities[i]
        top = largest(row, len(row))
        total = np.float32(0)
        for j in range(len(row)):
            e = exp(row[j] - top)
            out[j] = e
            total += e
        losses[i] = np.log(total) - (row[target[i]] - top)
        inverse = ONE / total
        for j in range(len(row)):
            out[j] *= inverse


@njit(fastmath=FLAGS)
def cross_entropy_grad(grad, probabilities, target, kept):
    """probabilities (rows, classes), in place, target, kept (rows,)."""
    for i in range(len(probabilities)):
        row = probabilities[i]
        if kept[i]:
            row[target[i]] -= ONE
            for j in range(len(row)):
                row[j] *= grad
        else:
            row[:] = 0
