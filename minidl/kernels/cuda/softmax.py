"""Softmax along a dimension, its logarithm, attention's weights, and their gradients: a kernel forward, one backward.

A dimension other than the last is first brought there, in memory.
"""

import functools
import math

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, permute
from minidl.kernels.cuda.kernel_launch import launch
from minidl.kernels.cuda.rows import across, blocks_of_rows, first_row, online, rows_at_once
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = [
    "attention_weights", "attention_weights_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip


# The kernels


def finishes(F):
    """What becomes of a number, given the largest of its row and the sum of exp(number - largest)."""
    return {
        "softmax": lambda x, top, total: math.exp(x - top) / total,
        "log_softmax": lambda x, top, total: x - top - math.log(total),
        "attention_weights": lambda x, top, total: math.exp(x - top) / total,
    }


@functools.cache
def softmax_kernel(name: str, F: type, kept: int):
    finish = cuda.jit(device=True)(finishes(F)[name])
    largest, whole, with_next = across("maximum", F), across("add", F), online(F)
    zero, one, lowest, slots = F(0), F(1), F(-math.inf), max(kept, 1)
    may_see_nothing = name == "attention_weights"

    @cuda.jit
    def softmax_rows(out, x, rows, width, scale, queries, window):
        """out = softmax(scale x) of each row. queries > 0: of which row i, i + queries, ... sees the columns up to i.

        window > 0: of these the last ones, so many at most.

        A row that is kept is read once, and its largest number found before its sum; a longer one is read twice, and
        both are found at once.
        """
        rows, width, queries, window = unsigned(rows), unsigned(width), unsigned(queries), unsigned(window)
        column, columns = unsigned(cuda.threadIdx.x), unsigned(cuda.blockDim.x)
        values = cuda.local.array(slots, F)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start = unsigned(row * width)
            seen = unsigned(0 if row >= rows else min(width, row % queries + 1) if queries > 0 else width)
            before = unsigned(row % queries + 1 - window if 0 < window <= row % queries else 0)  # of what is not seen
            top, total = lowest, zero
            if kept:
                for k in range(kept):
                    j = unsigned(column + k * columns)
                    values[k] = x[unsigned(start + j)] * scale if before <= j < seen else lowest
                    top = top if top >= values[k] or top != top else values[k]
            else:
                j = unsigned(column + before)
                while j < seen:
                    top, total = with_next(top, total, x[unsigned(start + j)] * scale)
                    j = unsigned(j + columns)
            own, top = top, largest(top)
            if may_see_nothing and top == lowest:
                top = zero
            if kept:
                for k in range(kept):
                    total += math.exp(values[k] - top)
            elif total != zero:
                total *= math.exp(own - top)
            total = whole(total)
            if may_see_nothing and total == zero:
                total = one
            if kept:
                for k in range(kept):
                    j = unsigned(column + k * columns)
                    if row < rows and j < width:
                        out[unsigned(start + j)] = finish(values[k], top, total)
            elif row < rows:
                j = column
                while j < width:
                    number = x[unsigned(start + j)] * scale if before <= j < seen else lowest
                    out[unsigned(start + j)] = finish(number, top, total)
                    j = unsigned(j + columns)
            first = unsigned(first + step)

    return softmax_rows


def gradients(F):
    """What a row sums up, and what becomes of a number, given the sum. y: the result of the forward kernel."""
    return {
        "softmax": (lambda grad, y: grad * y, lambda grad, y, total: grad * y - y * total),
        "log_softmax": (lambda grad, y: grad, lambda grad, y, total: grad - math.exp(y) * total),
    }


@functools.cache
def softmax_grad_kernel(name: str, F: type):
    term, finish = (cuda.jit(device=True)(f) for f in gradients(F)[name])
    whole, zero = across("add", F), F(0)

    @cuda.jit
    def softmax_grad_rows(out, grad, y, rows, width, scale):
        """A row is read twice, the second time from the cache."""
        rows, width, columns = unsigned(rows), unsigned(width), unsigned(cuda.blockDim.x)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start = unsigned(row * width + cuda.threadIdx.x)
            end = unsigned(row * width + width if row < rows else 0)
            at, total = start, zero
            while at < end:
                total += term(grad[at], y[at])
                at = unsigned(at + columns)
            total = whole(total)
            at = start
            while at < end:
                out[at] = finish(grad[at], y[at], total) * scale
                at = unsigned(at + columns)
            first = unsigned(first + step)

    return softmax_grad_rows


# Launching them


def softmax(x, dim):
    """exp(x) / sum(exp(x)) along `dim`."""
    return _along(dim, _forward, "softmax", x)


def softmax_grad(grad, y, dim):
    """`y` is the result of softmax."""
    return _along(dim, _backward, "softmax", grad, y)


def log_softmax(x, dim):
    return _along(dim, _forward, "log_softmax", x)


def log_softmax_grad(grad, y, dim):
    """`y` is the result of log_softmax."""
    return _along(dim, _backward, "log_softmax", grad, y)


def attention_weights(scores, scale, is_causal, window=None):
    """softmax(scale * scores) over the last dimension; with is_causal query i sees the keys up to i.

    window: of these it sees no more than so many, the last ones; None for all. A row of nothing but -inf, a query that
    sees no key, gives zeros. In place if the scores are contiguous.
    """
    scores = contiguous(scores)
    queries = scores.shape[-2] if is_causal else 0
    _forward("attention_weights", scores, scores, scale=scale, queries=queries, window=window or 0)
    return scores


def attention_weights_grad(grad, weights, scale):
    """The gradient of the scores, in place of `grad` if it is contiguous."""
    grad = contiguous(grad)
    _backward("softmax", grad, grad, contiguous(weights), scale=scale)
    return grad


def _along(dim, run, name, *arrays):
    """A new array: `run` on the rows that `dim` makes."""
    if not arrays[0].ndim:
        return _along(0, run, name, *(a.view((1,), None) for a in arrays)).view((), None)
    dims = list(range(arrays[0].ndim))
    dims[dim], dims[-1] = dims[-1], dims[dim]
    turned = [contiguous(permute(a, dims)) for a in arrays]
    out = CudaArray(turned[0].shape, turned[0].dtype)
    run(name, out, *turned)
    return permute(out, dims)


def _forward(name, out, x, scale=1, queries=0, window=0):
    if x.size:
        width, F = x.shape[-1], x.dtype.type
        rows = x.size // width
        blocks, block, kept = blocks_of_rows(rows, width)
        launch(softmax_kernel(name, F, kept), blocks, block, out, x, rows, width, F(scale), queries, window)


def _backward(name, out, grad, y, scale=1):
    if grad.size:
        width, F = grad.shape[-1], grad.dtype.type
        rows = grad.size // width
        blocks, block, _ = blocks_of_rows(rows, width)
        launch(softmax_grad_kernel(name, F), blocks, block, out, grad, y, rows, width, F(scale))
