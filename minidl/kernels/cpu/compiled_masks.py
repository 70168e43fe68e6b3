"""Dropout compiled by Numba: random words are compared where they are drawn, without putting them into memory."""

import numpy as np

from minidl import philox
from minidl.kernels.cpu.compiling import njit

words = njit(inline="always")(philox.philox)
uniform = njit(inline="always")(philox.uniform)


@njit()
def random_mask(mask, first, samples, step, key_0, key_1, p):
    """mask (samples, 4 counters): where the uniform numbers of the counters from `first` on are p or more.

    samples: int64. step, key_0, key_1: uint32. p: float32.
    """
    for i in range(len(mask)):
        row, low, high = mask[i], np.uint32(samples[i]), np.uint32(samples[i] >> 32)
        for q in range(len(row) // 4):
            w0, w1, w2, w3 = words(np.uint32(first + q), low, high, step, key_0, key_1)
            row[4 * q] = uniform(w0) >= p
            row[4 * q + 1] = uniform(w1) >= p
            row[4 * q + 2] = uniform(w2) >= p
            row[4 * q + 3] = uniform(w3) >= p


@njit()
def dropout_grad(grad, mask, scale, out):
    """All but scale flat."""
    for i in range(len(grad)):
        out[i] = grad[i] * np.float32(mask[i]) * scale
