"""Attention in tiles: the scores of a tile of queries and a tile of keys are made, used and forgotten, never stored.

What a query has seen so far is kept as an online softmax: its largest score, the sum of the exponentials and the
weighted sum of the values, which shrink when a larger score comes (Dao et al. 2022, "FlashAttention", algorithm 1).
Backward makes the weights again from the log-sum-exp of each query (section 3.1), once for a tile of queries and once
for a tile of keys, so that no two blocks add to the same gradient.

Tiles lie in shared memory. Threads (lane, line) hold entries (line + i LINES, lane + j LANES) of a tile in registers: a
number that is read from shared memory then serves several products. Rows of shared memory have an odd length, so that
the threads of a warp read different banks.
"""

import functools
import math

import numpy as np

from minidl.kernels import layout
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.elementwise import broadcast_strides
from minidl.kernels.cuda.launch import THREADS, launch, over, padded
from minidl.kernels.cuda.places import place
from minidl.kernels.cuda.rows import ALL
from minidl.kernels.cuda.target import EMULATED, cuda

__all__ = ["attention", "attention_grad", "attention_in_tiles"]

WIDEST = 512  # bytes of a row: heads of 128 numbers of float32


def forward_tile(row: int) -> tuple[int, int, int, int]:
    """Queries and keys of a tile, lines and lanes of threads: powers of 2. row: bytes of one in shared memory.

    Larger ones reuse more of what they read; what a block needs must fit into 48 KiB.
    """
    return (8, 8, 4, 4) if EMULATED else (64, 32, 16, 8) if row <= WIDEST // 2 else (32, 32, 16, 8)


def backward_tile(row: int) -> tuple[int, int, int, int]:
    """Rows and columns of a tile, lines and lanes of threads."""
    return (8, 8, 4, 4) if EMULATED else (32, 32, 8, 8) if row <= WIDEST // 2 else (16, 16, 8, 8)


def padded_width(width: int) -> int:
    """The width for which kernels are compiled, a power of 2: the rest of a tile is 0."""
    return max(8, 1 << (width - 1).bit_length()) if width else 8


# Pieces


@functools.cache
def loading(F: type, rows: int, width: int, threads: int):
    stride, zero = width + 1, F(0)

    @cuda.jit(device=True)
    def load(tile, x, first, row_step, step, start, rows_of_x, width_of_x, thread):
        """tile = rows start, start + 1, ... of the matrix x, with zeros beyond its end. Threads go along its rows."""
        for i in range(thread, rows * width, threads):
            row, column = i // width, i % width
            inside = start + row < rows_of_x and column < width_of_x
            tile[row * stride + column] = x[first + (start + row) * row_step + column * step] if inside else zero

    return load


@functools.cache
def product(F: type, rows: int, columns: int, depth: int, a_row: int, b_column: int, b_depth: int, lines, lanes):
    """A device function: to `sums`, the (rows, columns) entries of a thread, is added what they are of A B.

    A lies in memory by rows, `a_row` apart; B has its columns `b_column` apart and its rows `b_depth`. Of each step
    along `depth`, rows + columns numbers are read for rows * columns products. Everything is a power of 2 but the
    distances, and `&` says so to the compiler: an index that may be negative would cost it more than the product, since
    Python counts it from the end.
    """

    @cuda.jit(device=True)
    def add_product(sums, a, b, line, lane):
        a_numbers, b_numbers = cuda.local.array(rows, F), cuda.local.array(columns, F)
        for step in range(depth):
            d = step & (depth - 1)
            for i in range(rows):
                a_numbers[i] = a[(line + i * lines) * a_row + d]
            for j in range(columns):
                b_numbers[j] = b[(lane + j * lanes) * b_column + d * b_depth]
            for i in range(rows):
                for j in range(columns):
                    sums[i * columns + j] += a_numbers[i] * b_numbers[j]

    return add_product


# Forward


@functools.cache
def attention_kernel(F: type, width: int, tile: tuple):
    queries_in_tile, keys_in_tile, LINES, LANES = tile
    R, C, W = queries_in_tile // LINES, keys_in_tile // LANES, width // LANES  # rows, keys and values of a thread
    threads, stride, weight_stride = LANES * LINES, width + 1, keys_in_tile + 1
    query_size, key_size, weight_size = queries_in_tile * stride, keys_in_tile * stride, queries_in_tile * weight_stride
    scores_size, out_size = R * C, R * W
    load_queries, load_keys = (loading(F, n, width, threads) for n in (queries_in_tile, keys_in_tile))
    add_scores = product(F, R, C, width, stride, stride, 1, LINES, LANES)
    add_values = product(F, R, W, keys_in_tile, weight_stride, 1, stride, LINES, LANES)
    zero, one, lowest = F(0), F(1), F(-math.inf)

    @cuda.jit
    def attention_tiles(
        out, log_sum_exp, q, k, v, tiles, heads, to_out, of_q, of_k, of_v, steps, queries, keys, width_q, width_v,
        scale, is_causal,
    ):  # fmt: skip
        """One block a tile of queries of one head. steps: of q, k, v and out from row to row and along a row."""
        q_tile = cuda.shared.array(query_size, F)
        kv_tile = cuda.shared.array(key_size, F)
        weights = cuda.shared.array(weight_size, F)
        best, total = cuda.local.array(R, F), cuda.local.array(R, F)
        summed, scores = cuda.local.array(out_size, F), cuda.local.array(scores_size, F)
        lane, line = cuda.threadIdx.x & (LANES - 1), cuda.threadIdx.y & (LINES - 1)
        thread = lane + line * LANES
        head = cuda.blockIdx.x // tiles
        start = (tiles - 1 - cuda.blockIdx.x % tiles) * queries_in_tile  # causal: what takes longest begins first
        at_k, at_v = place(head, heads, of_k), place(head, heads, of_v)
        load_queries(q_tile, q, place(head, heads, of_q), steps[0], steps[1], start, queries, width_q, thread)
        for i in range(R):
            best[i], total[i] = lowest, zero
            for j in range(W):
                summed[i * W + j] = zero
        end = min(keys, start + queries_in_tile) if is_causal else keys
        for base in range(0, end, keys_in_tile):
            cuda.syncthreads()
            load_keys(kv_tile, k, at_k, steps[2], steps[3], base, keys, width_q, thread)
            cuda.syncthreads()
            for i in range(scores_size):
                scores[i] = zero
            add_scores(scores, q_tile, kv_tile, line, lane)
            for i in range(R):
                row, top = line + i * LINES, best[i]
                for j in range(C):
                    key = base + lane + j * LANES
                    seen = key < keys and (not is_causal or key <= start + row)
                    score = scores[i * C + j] * scale if seen else lowest
                    scores[i * C + j] = score
                    top = top if top >= score or top != top else score
                distance = 1
                while distance < LANES:
                    other = cuda.shfl_xor_sync(ALL, top, distance)
                    top = top if top >= other or top != top else other
                    distance *= 2
                safe = zero if top == lowest else top
                shrink = math.exp(best[i] - safe)
                best[i] = top
                total[i] *= shrink
                for j in range(C):
                    weight = math.exp(scores[i * C + j] - safe)
                    weights[row * weight_stride + lane + j * LANES] = weight
                    total[i] += weight  # of this lane's keys: lanes are added up in the end
                for j in range(W):
                    summed[i * W + j] *= shrink
            cuda.syncthreads()
            load_keys(kv_tile, v, at_v, steps[4], steps[5], base, keys, width_v, thread)
            cuda.syncthreads()
            add_values(summed, weights, kv_tile, line, lane)
        at_out = place(head, heads, to_out)
        for i in range(R):
            row, whole, distance = start + line + i * LINES, total[i], 1
            while distance < LANES:
                whole += cuda.shfl_xor_sync(ALL, whole, distance)
                distance *= 2
            inverse = one / whole if whole != zero else zero  # a query that sees no key gets zeros
            if row < queries:
                for j in range(W):
                    column = lane + j * LANES
                    if column < width_v:
                        out[at_out + row * steps[6] + column * steps[7]] = summed[i * W + j] * inverse
                if lane == 0:
                    log_sum_exp[head * queries + row] = best[i] + math.log(whole) if whole != zero else lowest

    return attention_tiles


# Backward


@functools.cache
def grad_kernel(F: type, width: int, tile: tuple, of_queries: bool):
    rows_in_tile, columns_in_tile, LINES, LANES = tile
    R, C, W = rows_in_tile // LINES, columns_in_tile // LANES, width // LANES  # rows and columns of a thread
    threads, stride, weight_stride = LANES * LINES, width + 1, columns_in_tile + 1
    row_size, column_size, weight_size = rows_in_tile * stride, columns_in_tile * stride, rows_in_tile * weight_stride
    scores_size, out_size = R * C, R * W
    load_rows, load_columns = (loading(F, n, width, threads) for n in (rows_in_tile, columns_in_tile))
    add_scores = product(F, R, C, width, stride, stride, 1, LINES, LANES)
    add_rows = product(F, R, W, columns_in_tile, weight_stride, 1, stride, LINES, LANES)
    zero, lowest = F(0), F(-math.inf)

    @cuda.jit
    def attention_grad_tiles(
        out, out_grad, row, row_grad, column, column_grad, log_sum_exp, along, tiles, heads, to_out, to_out_grad,
        of_row, of_row_grad, of_column, of_column_grad, steps, rows, columns, width_q, width_v, scale, is_causal,
    ):  # fmt: skip
        """One block a tile of rows of one head, which goes over all columns.

        of_queries: rows are queries and grad, columns keys and values; out is the gradient of the queries. Else the
        other way round, and out and out_grad are the gradients of keys and values. steps: of row, row_grad, column,
        column_grad, out and out_grad from row to row and along a row. along: of each query, the sum of grad * out.
        """
        row_tile, row_grad_tile = cuda.shared.array(row_size, F), cuda.shared.array(row_size, F)
        column_tile, column_grad_tile = cuda.shared.array(column_size, F), cuda.shared.array(column_size, F)
        weights = cuda.shared.array(weight_size, F)
        summed, summed_grad = cuda.local.array(out_size, F), cuda.local.array(out_size, F)
        scores, grads = cuda.local.array(scores_size, F), cuda.local.array(scores_size, F)
        lane, line = cuda.threadIdx.x & (LANES - 1), cuda.threadIdx.y & (LINES - 1)
        thread = lane + line * LANES
        head, start = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * rows_in_tile
        queries = rows if of_queries else columns
        at_column, at_column_grad = place(head, heads, of_column), place(head, heads, of_column_grad)
        load_rows(row_tile, row, place(head, heads, of_row), steps[0], steps[1], start, rows, width_q, thread)
        load_rows(
            row_grad_tile, row_grad, place(head, heads, of_row_grad), steps[2], steps[3], start, rows, width_v, thread
        )
        for i in range(out_size):
            summed[i] = zero
            summed_grad[i] = zero
        first, end = 0, columns
        if is_causal and of_queries:
            end = min(columns, start + rows_in_tile)
        elif is_causal:
            first = start // columns_in_tile * columns_in_tile
        for base in range(first, end, columns_in_tile):
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
                    at_row, at = start + line + i * LINES, base + lane + j * LANES
                    query, key = (at_row, at) if of_queries else (at, at_row)
                    weight = zero
                    if at_row < rows and at < columns and (not is_causal or key <= query):
                        of_query = log_sum_exp[head * queries + query]
                        if of_query != lowest:
                            weight = math.exp(scores[i * C + j] * scale - of_query)
                            grads[i * C + j] = weight * (grads[i * C + j] - along[head * queries + query])
                    if weight == zero:
                        grads[i * C + j] = zero
                    scores[i * C + j] = weight
            if not of_queries:
                for i in range(R):
                    for j in range(C):
                        weights[(line + i * LINES) * weight_stride + lane + j * LANES] = scores[i * C + j]
                cuda.syncthreads()
                add_rows(summed_grad, weights, column_grad_tile, line, lane)
                cuda.syncthreads()
            for i in range(R):
                for j in range(C):
                    weights[(line + i * LINES) * weight_stride + lane + j * LANES] = grads[i * C + j]
            cuda.syncthreads()
            add_rows(summed, weights, column_tile, line, lane)
        to, to_grad = place(head, heads, to_out), place(head, heads, to_out_grad)
        for i in range(R):
            at_row = start + line + i * LINES
            for j in range(W):
                at = lane + j * LANES
                if at_row < rows and at < width_q:
                    out[to + at_row * steps[8] + at * steps[9]] = summed[i * W + j] * scale
                if not of_queries and at_row < rows and at < width_v:
                    out_grad[to_grad + at_row * steps[10] + at * steps[11]] = summed_grad[i * W + j]

    return attention_grad_tiles


@functools.cache
def along_kernel(F: type):
    zero = F(0)

    @cuda.jit
    def attention_along(along, grad, out, heads, of_grad, of_out, steps, count, queries, width):
        """along = the sum of grad * out over each row, one thread a row."""
        for row in range(cuda.grid(1), count, cuda.gridsize(1)):
            head, query = row // queries, row % queries
            i = place(head, heads, of_grad) + query * steps[0]
            j = place(head, heads, of_out) + query * steps[2]
            total = zero
            for d in range(width):
                total += grad[i + d * steps[1]] * out[j + d * steps[3]]
            along[row] = total

    return attention_along


# Launching them


def attention_in_tiles(q, v):
    """Whether `attention` is the way to take for such queries and values: the heads are narrow enough."""
    return (
        padded_width(max(q.shape[-1], v.shape[-1])) * q.dtype.itemsize <= WIDEST
        and q.dtype == v.dtype
        and q.dtype.kind == "f"
    )


def attention(q, k, v, scale, is_causal):
    """softmax(scale Q K^T) V and, for each query, the logarithm of the sum of exp(scale Q K^T).

    q (..., queries, width), k (..., keys, width), v (..., keys, values), whose leading dimensions broadcast; causal:
    query i sees the keys up to i. A query that sees no key gets zeros, and -inf.
    """
    heads = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    queries, keys, F = q.shape[-2], k.shape[-2], q.dtype.type
    shape = (*heads, queries, v.shape[-1])
    out = CudaArray(shape, F, strides=layout.like(q.shape, q.strides) if q.shape == shape else None)
    log_sum_exp = CudaArray((*heads, queries), F)
    if log_sum_exp.size:
        width = padded_width(max(q.shape[-1], v.shape[-1]))
        tile = rows, _, lines, lanes = forward_tile(width * q.dtype.itemsize)
        tiles, arrays = -(-queries // rows), (out, q, k, v)
        launch(
            attention_kernel(F, width, tile), tiles * math.prod(heads), (lanes, lines), out, log_sum_exp, q, k, v,
            tiles, padded(heads, 1), *(_leading(x, heads) for x in arrays), _steps(q, k, v, out), queries, keys,
            q.shape[-1], v.shape[-1], F(scale), int(is_causal),
        )  # fmt: skip
    return out, log_sum_exp


def attention_grad(grad, q, k, v, out, log_sum_exp, scale, is_causal):
    """The gradients of q, k and v, each with the leading dimensions of `out`; the last two of forward are its own."""
    heads, F = out.shape[:-2], q.dtype.type
    along = CudaArray(log_sum_exp.shape, F)
    grads = [_new_like(x, (*heads, *x.shape[-2:])) for x in (q, k, v)]
    if along.size:
        arguments = padded(heads, 1), *(_leading(x, heads) for x in (grad, out)), _steps(grad, out)
        count = along.size, q.shape[-2], v.shape[-1]
        launch(along_kernel(F), over(along.size), THREADS, along, grad, out, *arguments, *count)
    _grad(True, grads[0], grads[0], q, grad, k, v, log_sum_exp, along, heads, scale, is_causal)
    _grad(False, grads[1], grads[2], k, v, q, grad, log_sum_exp, along, heads, scale, is_causal)
    return tuple(grads)


def _grad(of_queries, *arrays_and_options):
    """One launch of the kernel of gradients: arrays in the order of its arguments."""
    *arrays, log_sum_exp, along, heads, scale, is_causal = arrays_and_options
    out, _, row, row_grad, column, _ = arrays
    if not out.size and not arrays[1].size:
        return
    rows, columns, width_q, width_v = row.shape[-2], column.shape[-2], row.shape[-1], row_grad.shape[-1]
    F, width = out.dtype.type, padded_width(max(width_q, width_v))
    tile = rows_in_tile, _, lines, lanes = backward_tile(width * out.dtype.itemsize)
    tiles = -(-rows // rows_in_tile)
    launch(
        grad_kernel(F, width, tile, of_queries), tiles * math.prod(heads), (lanes, lines), *arrays, log_sum_exp, along,
        tiles, padded(heads, 1), *(_leading(x, heads) for x in arrays), _steps(*arrays[2:], *arrays[:2]), rows, columns,
        width_q, width_v, F(scale), int(is_causal),
    )  # fmt: skip


def _new_like(x, shape):
    """A new array of `shape`, in the order of memory of x if it is of that shape."""
    return CudaArray(shape, x.dtype, strides=layout.like(x.shape, x.strides) if x.shape == shape else None)


def _leading(x, heads):
    """How far the matrices of x lie apart, stretched to `heads`, and where the first begins: see `place`."""
    strides = broadcast_strides(x, (*heads, *x.shape[-2:]))
    return (*padded(strides[:-2], 0), x.first)


def _steps(*arrays):
    return tuple(step for x in arrays for step in x.strides[-2:])
