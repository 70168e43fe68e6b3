"""Dropout compiled: random words are compared where they are drawn, without putting them into memory."""

import numpy as np

from minidl import philox
from minidl.kernels.cpu.fast.compiling import njit
from minidl.kernels.cpu.fast.threads import THREAD, split, thread_rows

words = njit(inline="always")(philox.philox)
uniform = njit(inline="always")(philox.uniform)


def mask_of(shape, stream, p):
    """Where `random.uniform_of(shape, stream)` is p or more."""
    first, skipped = divmod(stream.start, 4)
    counters = -(-(skipped + stream.per_sample) // 4)
    mask = np.empty((len(stream.samples), 4 * counters), bool)
    key = np.uint32(stream.step), *stream.key_words, np.float32(p)

    def rows(part):
        random_mask(mask[part], first, stream.samples[part], *key)

    def columns(part):
        random_mask(mask[:, 4 * part.start : 4 * part.stop], first + part.start, stream.samples, *key)

    if len(mask) > 1:
        split(len(mask), rows, thread_rows(stream.per_sample))
    else:
        split(counters, columns, thread_rows(4))
    return np.ascontiguousarray(mask[:, skipped : skipped + stream.per_sample]).reshape(shape)


def dropout_grad(grad, mask, p):
    """grad: contiguous."""
    out = np.empty_like(grad)
    g, m, o, scale = grad.reshape(-1), mask.reshape(-1), out.reshape(-1), np.float32(1 / (1 - p))
    split(len(g), lambda part: scaled(g[part], m[part], scale, o[part]), THREAD)
    return out


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
def scaled(grad, mask, scale, out):
    """out = grad * mask * scale; all but scale flat."""
    for i in range(len(grad)):
        out[i] = grad[i] * np.float32(mask[i]) * scale
