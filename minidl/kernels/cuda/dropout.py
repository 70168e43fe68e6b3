"""Dropout, with the masks that a CPU draws: Philox gives any thread the random words of its elements by their place."""

import functools

import numpy as np

from minidl import philox, random
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous
from minidl.kernels.cuda.device_memory import pool
from minidl.kernels.cuda.elementwise import mapped
from minidl.kernels.cuda.kernel_launch import block_for, launch, over_rows
from minidl.kernels.cuda.places import column, columns, row, rows
from minidl.kernels.cuda.staging import pinned
from minidl.kernels.cuda.target import cuda, unsigned
from minidl.kernels.cuda.transfers import upload

__all__ = ["dropout", "dropout_grad"]

words, uniform = cuda.jit(device=True)(philox.philox), cuda.jit(device=True)(philox.uniform)


@functools.cache
def dropout_kernel(F: type):
    zero = F(0)

    @cuda.jit(device=True)
    def drop(out, mask, x, at, end, word, p, scale):
        if at < end:
            keep = uniform(word) >= p
            mask[at] = keep
            out[at] = x[at] * (scale if keep else zero)

    @cuda.jit
    def dropout(out, mask, x, samples, count, width, counters, step, key_0, key_1, p, scale):
        """x (count, width), `counters` for each row.

        A thread for every four elements, since a counter gives four words: what it draws stays in registers, and no
        random number goes to memory. That costs about 100 integer instructions, less time than the elements take to
        come. The fours of neighbouring threads lie on end, so that four loads of a warp read all of what they fetch.
        """
        count, width, counters = unsigned(count), unsigned(width), unsigned(counters)
        first, all_columns, line, lines = column(), columns(), row(), rows()
        while line < count:
            low, high = np.uint32(samples[line]), np.uint32(samples[line] >> 32)
            start, end, q = unsigned(line * width), unsigned(line * width + width), first
            while q < counters:
                w0, w1, w2, w3 = words(np.uint32(q), low, high, step, key_0, key_1)
                at = unsigned(start + 4 * q)
                drop(out, mask, x, at, end, w0, p, scale)
                drop(out, mask, x, unsigned(at + 1), end, w1, p, scale)
                drop(out, mask, x, unsigned(at + 2), end, w2, p, scale)
                drop(out, mask, x, unsigned(at + 3), end, w3, p, scale)
                q = unsigned(q + all_columns)
            line = unsigned(line + lines)

    return dropout


@pool.remembers(8)  # all masks of a step are for the same samples
def _samples(values: bytes) -> CudaArray:
    on_host = pinned((len(values) // 8,), np.int64)
    on_host[:] = np.frombuffer(values, np.int64)
    return upload(on_host)[0]


def dropout(x, p):
    """-> x without a random fraction p of its elements, the rest divided by 1 - p; and the mask of the rest (bool)."""
    s, x = random.stream(x.shape), contiguous(x)
    out, mask = CudaArray(x.shape, x.dtype), CudaArray(x.shape, bool)
    if x.size:
        rows, counters, F = len(s.samples), -(-s.per_sample // 4), x.dtype.type
        block = block_for(counters)
        launch(
            dropout_kernel(F), over_rows(rows, counters, block), block, out, mask, x, _samples(s.samples.tobytes()),
            rows, s.per_sample, counters, np.uint32(s.step), *s.key_words, np.float32(p), F(1 / (1 - p)),
        )  # fmt: skip
    return out, mask


def dropout_grad(grad, mask, p):
    return mapped("dropout_grad", grad, mask, numbers=(1 / (1 - p),))
