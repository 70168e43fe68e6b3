"""Matrix products: the plain kernel, of which every thread computes one element, and the one by tiles (tiled.py)."""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import reshape, swap_last
from minidl.kernels.cuda.elementwise import broadcast_strides
from minidl.kernels.cuda.kernel_launch import block_for, collapsed, launch, padded
from minidl.kernels.cuda.places import column, columns, place, row, rows
from minidl.kernels.cuda.target import cuda, unsigned
from minidl.kernels.cuda.tiled import matrices, multiply

__all__ = ["linear", "matmul"]


@functools.cache
def naive(F: type):
    """A thread for each element of the result, which reads a row of a and a column of b from memory.

    Neighbours along a row of the result read one element of a and neighbours of b. But of two loads come one product
    and one sum, and every element is read as often as there are columns, or rows: what is slow is the memory.
    """
    zero = F(0)

    @cuda.jit
    def naive_product(out, a, b, m, n, k, batch, shape, of_out, of_a, of_b, steps_out, steps_a, steps_b):
        m, n, k, count = unsigned(m), unsigned(n), unsigned(k), unsigned(batch * m)
        next_a, next_b = unsigned(steps_a[1]), unsigned(steps_b[0])
        line = row()
        while line < count:
            matrix, i = unsigned(line // m), unsigned(line % m)
            o = unsigned(place(matrix, shape, of_out) + i * unsigned(steps_out[0]))
            j = column()
            while j < n:
                p = unsigned(place(matrix, shape, of_a) + i * unsigned(steps_a[0]))
                q = unsigned(place(matrix, shape, of_b) + j * unsigned(steps_b[1]))
                d, total = unsigned(0), zero
                while d < k:
                    total += a[p] * b[q]
                    d, p, q = unsigned(d + 1), unsigned(p + next_a), unsigned(q + next_b)
                out[unsigned(o + j * unsigned(steps_out[1]))] = total
                j = unsigned(j + columns())
            line = unsigned(line + rows())

    return naive_product


def matmul(a, b, out=None):
    """a (..., m, k) times b (..., k, n); leading dimensions broadcast. out: where the result is written, if given."""
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not match")
    if b.ndim == 2 and a.ndim > 2 and out is None:  # one large product instead of many small ones
        rows = math.prod(a.shape[:-1])
        return reshape(matmul(reshape(a, (rows, a.shape[-1])), b), (*a.shape[:-1], b.shape[-1]))
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = CudaArray((*leading, a.shape[-2], b.shape[-1]), np.result_type(a.dtype, b.dtype))
    if out.dtype.kind == "f":
        product(out, a, b)
    else:
        plain_product(out, a, b)
    return out


def linear(x, weight, bias):
    """x (..., in) times weight (out, in) transposed, plus bias (out) or None -> (..., out)."""
    rows = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    y = CudaArray((rows.shape[0], weight.shape[0]), x.dtype)
    product(y, rows, swap_last(weight), bias)
    return reshape(y, (*x.shape[:-1], weight.shape[0]))


def product(out, a, b, bias=None, activation="same", how=None) -> None:
    """out = activation(a times b + bias (n,)), by tiles: see tiled.multiply."""
    m, n, k, shape, steps = _sizes(out, a, b)
    result, left, right = (
        matrices(x, line, deep, shape, of_batch)
        for x, (line, deep), of_batch in zip(
            (out, a, b), (out.strides[-2:], a.strides[-2:], b.strides[:-3:-1]), steps, strict=True
        )
    )
    of_bias = (0, 0, bias.strides[0]) if bias is not None else (0, 0, 0)
    multiply(result, left, right, (math.prod(shape), m, n, k), bias, of_bias, activation, how)


def plain_product(out, a, b) -> None:
    """out = a times b, by the plain kernel."""
    m, n, k, shape, steps = _sizes(out, a, b)
    batch = math.prod(shape)
    if not out.size:
        return
    across, down = block = block_for(n)
    blocks = min(-(-n // across), 1 << 15), min(-(-batch * m // down), 1 << 15)
    launch(
        naive(out.dtype.type), blocks, block, out, a, b, m, n, k, batch, padded(shape, 1),
        *((*padded(of_batch, 0), x.first) for x, of_batch in zip((out, a, b), steps, strict=True)),
        out.strides[-2:], a.strides[-2:], b.strides[-2:],
    )  # fmt: skip


def _sizes(out, a, b):
    """(m, n, k, shape of the batch, how far its matrices lie apart in out, a and b)."""
    leading = out.shape[:-2]
    steps = [
        broadcast_strides(x.view(x.shape[:-2], x.strides[:-2]), leading) if x.shape[:-2] else (0,) * len(leading)
        for x in (out, a, b)
    ]
    shape, steps = collapsed(leading, *steps)
    return out.shape[-2], out.shape[-1], a.shape[-1], shape, steps
