"""The cross-entropy of losses.py compiled, for float32."""

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE, exp
from minidl.kernels.cpu.fast.softmax import largest
from minidl.kernels.cpu.fast.threads import split, thread_rows

THREAD = 1 << 16  # elements that are worth a thread of their own


def cross_entropy(logits, target):
    """The loss of each row, and the probabilities."""
    rows, classes = logits.shape
    logits, target = np.ascontiguousarray(logits), np.ascontiguousarray(target)
    losses, p = np.empty(rows, logits.dtype), np.empty(logits.shape, logits.dtype)
    split(rows, lambda part: by_row(logits[part], target[part], p[part], losses[part]), thread_rows(classes, THREAD))
    return losses, p


def cross_entropy_grad(grad, probabilities, target, kept):
    """In place of the probabilities."""
    p, grad = probabilities, np.float32(grad)
    split(
        len(p), lambda part: by_row_gradient(grad, p[part], target[part], kept[part]), thread_rows(p.shape[1], THREAD)
    )
    return p


@njit(fastmath=FLAGS)
def by_row(logits, target, probabilities, losses):
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
def by_row_gradient(grad, probabilities, target, kept):
    """probabilities (rows, classes), in place, target, kept (rows,)."""
    for i in range(len(probabilities)):
        row = probabilities[i]
        if kept[i]:
            row[target[i]] -= ONE
            for j in range(len(row)):
                row[j] *= grad
        else:
            row[:] = 0
