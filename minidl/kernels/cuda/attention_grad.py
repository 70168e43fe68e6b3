"""The gradients of attention in tiles: the weights are made again from the log-sum-exp of each query.

That is done once for a tile of queries, whose gradient goes over all keys, and once for a tile of keys, so that no two
blocks add to the same gradient (Dao et al. 2022, "FlashAttention", section 3.1; the order of the loops is that of Dao
2023, "FlashAttention-2"). It is one kernel: the scores of keys and queries are those of queries and keys transposed.
"""

import functools
import math

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous
from minidl.kernels.cuda.attention_tiles import (
    PAD,
    backward_tile,
    entry,
    group,
    leading,
    loading,
    new_like,
    padded_width,
    product,
    steps_of,
)  # fmt: skip
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over, padded
from minidl.kernels.cuda.places import column, columns, place
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["attention_grad"]


@functools.cache
def grad_kernel(F: type, width: int, tile: tuple, of_queries: bool):
    rows_in_tile, columns_in_tile, LINES, LANES = tile
    R, C, W = rows_in_tile // LINES, columns_in_tile // LANES, width // LANES  # rows and columns of a thread
    threads, at_once = LANES * LINES, (LINES, LANES)
    row_apart, column_apart = rows_in_tile + PAD, columns_in_tile + PAD
    row_size, column_size, weight_size = width * row_apart, width * column_apart, columns_in_tile * row_apart
    scores_size, out_size, row_group, column_group = R * C, R * W, group(R), group(C)
    load_rows, load_columns = (loading(F, n, width, threads, True) for n in (rows_in_tile, columns_in_tile))
    add_scores = product(F, (R, C, width), at_once, row_apart, column_apart, 1)
    add_rows = product(F, (R, W, columns_in_tile), at_once, row_apart, 1, column_apart)
    zero, lowest = F(0), F(-math.inf)

    @cuda.jit
    def attention_grad_tiles(
        out, out_grad, row, row_grad, column, column_grad, log_sum_exp, along, tiles, heads, to_out, to_out_grad,
        of_row, of_row_grad, of_column, of_column_grad, steps, rows, columns, width_q, width_v, scale, is_causal,
        window,
    ):  # fmt: skip
        """One block a tile of rows of one head, which goes over all columns.

        of_queries: rows are queries and grad, columns keys and values; out is the gradient of the queries. Else the
        other way round, and out and out_grad are the gradients of keys and values. steps: of row, row_grad, column,
        column_grad, out and out_grad from row to row and along a row. along: of each query, the sum of grad * out.
        """
        row_tile = cuda.shared.array(row_size, F, alignment=16)
        row_grad_tile = cuda.shared.array(row_size, F, alignment=16)
        column_tile = cuda.shared.array(column_size, F, alignment=16)
        column_grad_tile = cuda.shared.array(column_size, F, alignment=16)
        weights = cuda.shared.array(weight_size, F, alignment=16)
        summed, summed_grad = cuda.local.array(out_size, F), cuda.local.array(out_size, F)
        scores, grads = cuda.local.array(scores_size, F), cuda.local.array(scores_size, F)
        lane, line = cuda.threadIdx.x & (LANES - 1), cuda.threadIdx.y & (LINES - 1)
        thread = lane + line * LANES
        tiles, rows, columns = unsigned(tiles), unsigned(rows), unsigned(columns)
        width_q, width_v, window = unsigned(width_q), unsigned(width_v), unsigned(window)
        block = unsigned(cuda.blockIdx.x)
        head, start = unsigned(block // tiles), unsigned(block % tiles * rows_in_tile)
        queries = rows if of_queries else columns
        at_column, at_column_grad = place(head, heads, of_column), place(head, heads, of_column_grad)
        load_rows(row_tile, row, place(head, heads, of_row), steps[0], steps[1], start, rows, width_q, thread)
        load_rows(
            row_grad_tile, row_grad, place(head, heads, of_row_grad), steps[2], steps[3], start, rows, width_v, thread
        )
        for i in range(out_size):
            summed[i] = zero
            summed_grad[i] = zero
        base, end = unsigned(0), columns
        if is_causal and of_queries:
            end = min(columns, unsigned(start + rows_in_tile))
            first = unsigned(start + 1 - window if window <= start else 0)  # key that a query of this tile sees
            base = unsigned(first // columns_in_tile * columns_in_tile)
        elif is_causal:
            base = unsigned(start // columns_in_tile * columns_in_tile)
            end = min(columns, unsigned(start + rows_in_tile - 1 + window))  # the last query to see a key of this tile
        while base < end:
            cuda.syncthreads()
            load_columns(column_tile, column, at_column, steps[4], steps[5], base, columns, width_q, thread)
            load_columns(
                column_grad_tile, column_grad, at_column_grad, steps[6], steps[7], base, columns, width_v, thread
            )
            cuda.syncthreads()
            for i in range(scores_size):
                scores[i] = zero
                grads[i] = zero
            add_scores(scores, row_tile, column_tile, line, lane)
            add_scores(grads, row_grad_tile, column_grad_tile, line, lane)
            for i in range(R):
                for j in range(C):
                    at_row = unsigned(start + entry(i, row_group, line, LINES))
                    at = unsigned(base + entry(j, column_group, lane, LANES))
                    query, key = (at_row, at) if of_queries else (at, at_row)
                    weight = zero
                    if at_row < rows and at < columns and (not is_causal or key <= query < key + window):
                        of_query = log_sum_exp[unsigned(head * queries + query)]
                        if of_query != lowest:
                            weight = math.exp(scores[i * C + j] * scale - of_query)
                            grads[i * C + j] = weight * (grads[i * C + j] - along[unsigned(head * queries + query)])
                    if weight == zero:
                        grads[i * C + j] = zero
                    scores[i * C + j] = weight
            if not of_queries:
                for i in range(R):
                    for j in range(C):
                        at = entry(j, column_group, lane, LANES) * row_apart + entry(i, row_group, line, LINES)
                        weights[at] = scores[i * C + j]
                cuda.syncthreads()
                add_rows(summed_grad, weights, column_grad_tile, line, lane)
                cuda.syncthreads()
            for i in range(R):
                for j in range(C):
                    at = entry(j, column_group, lane, LANES) * row_apart + entry(i, row_group, line, LINES)
                    weights[at] = grads[i * C + j]
            cuda.syncthreads()
            add_rows(summed, weights, column_tile, line, lane)
            base = unsigned(base + columns_in_tile)
        to, to_grad = place(head, heads, to_out), place(head, heads, to_out_grad)
        for i in range(R):
            at_row = unsigned(start + entry(i, row_group, line, LINES))
            for j in range(W):
                at = lane + j * LANES
                if at_row < rows and at < width_q:
                    to_here = unsigned(to + at_row * unsigned(steps[8]) + at * unsigned(steps[9]))
                    out[to_here] = summed[i * W + j] * scale
                if not of_queries and at_row < rows and at < width_v:
                    to_here = unsigned(to_grad + at_row * unsigned(steps[10]) + at * unsigned(steps[11]))
                    out_grad[to_here] = summed_grad[i * W + j]

    return attention_grad_tiles


@functools.cache
def along_kernel(F: type):
    zero = F(0)

    @cuda.jit
    def attention_along(along, grad, out, heads, of_grad, of_out, steps, count, queries, width):
        """along = the sum of grad * out over each row, one thread a row."""
        count, queries, width = unsigned(count), unsigned(queries), unsigned(width)
        row, step = column(), columns()
        while row < count:
            head, query = unsigned(row // queries), unsigned(row % queries)
            i = unsigned(place(head, heads, of_grad) + query * unsigned(steps[0]))
            j = unsigned(place(head, heads, of_out) + query * unsigned(steps[2]))
            d, total = unsigned(0), zero
            while d < width:
                total += grad[unsigned(i + d * unsigned(steps[1]))] * out[unsigned(j + d * unsigned(steps[3]))]
                d = unsigned(d + 1)
            along[row] = total
            row = unsigned(row + step)

    return attention_along


def attention_grad(grad, q, k, v, out, log_sum_exp, scale, is_causal, window=None):
    """The gradients of q, k and v, each with the leading dimensions of `out`; the last two of forward are its own."""
    window = q.shape[-2] if window is None else window
    heads, F, log_sum_exp = out.shape[:-2], q.dtype.type, contiguous(log_sum_exp)
    along = CudaArray(log_sum_exp.shape, F)
    grads = [new_like(x, (*heads, *x.shape[-2:])) for x in (q, k, v)]
    if along.size:
        arguments = padded(heads, 1), *(leading(x, heads) for x in (grad, out)), steps_of(grad, out)
        count = along.size, q.shape[-2], v.shape[-1]
        launch(along_kernel(F), over(along.size), THREADS, along, grad, out, *arguments, *count)
    _grad(True, grads[0], grads[0], q, grad, k, v, log_sum_exp, along, heads, scale, is_causal, window)
    _grad(False, grads[1], grads[2], k, v, q, grad, log_sum_exp, along, heads, scale, is_causal, window)
    return tuple(grads)


def _grad(of_queries, *arrays_and_options):
    """One launch of the kernel of gradients: arrays in the order of its arguments."""
    *arrays, log_sum_exp, along, heads, scale, is_causal, window = arrays_and_options
    out, _, row, row_grad, column, _ = arrays
    if not out.size and not arrays[1].size:
        return
    rows, columns, width_q, width_v = row.shape[-2], column.shape[-2], row.shape[-1], row_grad.shape[-1]
    F, width = out.dtype.type, padded_width(max(width_q, width_v))
    tile = rows_in_tile, _, lines, lanes = backward_tile(width * out.dtype.itemsize)
    tiles = -(-rows // rows_in_tile)
    launch(
        grad_kernel(F, width, tile, of_queries), tiles * math.prod(heads), (lanes, lines), *arrays, log_sum_exp, along,
        tiles, padded(heads, 1), *(leading(x, heads) for x in arrays), steps_of(*arrays[2:], *arrays[:2]), rows,
        columns, width_q, width_v, F(scale), int(is_causal), window,
    )  # fmt: skip
