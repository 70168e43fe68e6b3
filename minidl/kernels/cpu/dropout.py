"""Dropout: its random mask, and what is done with it forward and backward."""

import math

import numpy as np

from minidl import random
from minidl.kernels.cpu import fast

__all__ = ["dropout", "dropout_grad"]

MASKS_COMPILED_FROM = 1 << 13  # elements: NumPy takes 20 times as long to draw them


def dropout(x, p):
    """-> x without a random fraction p of its elements, the rest divided by 1 - p; and the mask of the rest (bool)."""
    mask = random_mask(x.shape, p)
    return dropout_grad(x, mask, p), mask


def random_mask(shape, p):
    """Where `random.uniform(shape)` is p or more: bools."""
    return random.drawn(shape, lambda piece, stream: _mask_of(piece, stream, p))


def _mask_of(shape, stream, p):
    """Where `random.uniform_of(shape, stream)` is p or more."""
    if math.prod(shape) >= MASKS_COMPILED_FROM:
        return fast.dropout.mask_of(shape, stream, p)
    return random.uniform_of(shape, stream) >= p


def dropout_grad(grad, mask, p):
    """grad where `mask` is true, divided by 1 - p, else 0; all of one shape."""
    if fast.use_compiled(grad) and grad.flags.c_contiguous:
        return fast.dropout.dropout_grad(grad, mask, p)
    out = grad * mask
    out *= 1 / (1 - p)
    return np.asarray(out)
