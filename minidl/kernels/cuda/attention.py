"""Attention in tiles: the scores of a tile of queries and a tile of keys are made, used and forgotten, never stored.

What a query has seen so far is kept as an online softmax: its largest score, the sum of the exponentials and the
weighted sum of the values, which shrink when a larger score comes (Dao et al. 2022, "FlashAttention", algorithm 1).
Backward, in attention_grad.py, makes the weights again from the log-sum-exp that forward leaves.
"""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.attention_tiles import (
    PAD,
    WIDEST_IN_TILES,
    entry,
    forward_tile,
    group,
    leading,
    loading,
    new_like,
    padded_width,
    product,
    steps_of,
)  # fmt: skip
from minidl.kernels.cuda.kernel_launch import launch, padded
from minidl.kernels.cuda.places import place
from minidl.kernels.cuda.rows import ALL
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["WIDEST_IN_TILES", "attention"]


@functools.cache
def attention_kernel(F: type, width: int, tile: tuple):
    queries_in_tile, keys_in_tile, LINES, LANES = tile
    R, C, W = queries_in_tile // LINES, keys_in_tile // LANES, width // LANES  # rows, keys and values of a thread
    threads, at_once = LANES * LINES, (LINES, LANES)
    q_apart, k_apart, v_apart = queries_in_tile + PAD, keys_in_tile + PAD, width + PAD
    query_size, weight_size = width * q_apart, keys_in_tile * q_apart
    key_size, scores_size, out_size = max(width * k_apart, keys_in_tile * v_apart), R * C, R * W
    row_group, key_group, value_group = group(R), group(C), group(W)
    load_queries = loading(F, queries_in_tile, width, threads, True)
    load_keys, load_values = (loading(F, keys_in_tile, width, threads, turned) for turned in (True, False))
    add_scores = product(F, (R, C, width), at_once, q_apart, k_apart, 1)
    add_values = product(F, (R, W, keys_in_tile), at_once, q_apart, v_apart, 1)
    zero, one, lowest = F(0), F(1), F(-math.inf)

    @cuda.jit
    def attention_tiles(
        out, log_sum_exp, q, k, v, tiles, heads, to_out, of_q, of_k, of_v, steps, queries, keys, width_q, width_v,
        scale, is_causal, window,
    ):  # fmt: skip
        """One block a tile of queries of one head. steps: of q, k, v and out from row to row and along a row."""
        q_tile = cuda.shared.array(query_size, F, alignment=16)
        kv_tile = cuda.shared.array(key_size, F, alignment=16)
        weights = cuda.shared.array(weight_size, F, alignment=16)
        best, total = cuda.local.array(R, F), cuda.local.array(R, F)
        summed, scores = cuda.local.array(out_size, F), cuda.local.array(scores_size, F)
        lane, line = cuda.threadIdx.x & (LANES - 1), cuda.threadIdx.y & (LINES - 1)
        thread = lane + line * LANES
        tiles, queries, keys = unsigned(tiles), unsigned(queries), unsigned(keys)
        width_q, width_v, window = unsigned(width_q), unsigned(width_v), unsigned(window)
        block = unsigned(cuda.blockIdx.x)
        head, number = unsigned(block // tiles), unsigned(block % tiles)
        start = unsigned((tiles - 1 - number) * queries_in_tile)  # causal: what takes longest begins first
        at_k, at_v = place(head, heads, of_k), place(head, heads, of_v)
        load_queries(q_tile, q, place(head, heads, of_q), steps[0], steps[1], start, queries, width_q, thread)
        for i in range(R):
            best[i], total[i] = lowest, zero
            for j in range(W):
                summed[i * W + j] = zero
        end = min(keys, unsigned(start + queries_in_tile)) if is_causal else keys
        first = unsigned(start + 1 - window if window <= start else 0)  # key that a query of this tile sees
        base = unsigned(first // keys_in_tile * keys_in_tile)
        while base < end:
            cuda.syncthreads()
            load_keys(kv_tile, k, at_k, steps[2], steps[3], base, keys, width_q, thread)
            cuda.syncthreads()
            for i in range(scores_size):
                scores[i] = zero
            add_scores(scores, q_tile, kv_tile, line, lane)
            for i in range(R):
                row, top = entry(i, row_group, line, LINES), best[i]
                for j in range(C):
                    key = unsigned(base + entry(j, key_group, lane, LANES))
                    seen = key < keys and (not is_causal or key <= start + row < key + window)
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
                    weights[entry(j, key_group, lane, LANES) * q_apart + row] = weight
                    total[i] += weight  # of this lane's keys: lanes are added up in the end
                for j in range(W):
                    summed[i * W + j] *= shrink
            cuda.syncthreads()
            load_values(kv_tile, v, at_v, steps[4], steps[5], base, keys, width_v, thread)
            cuda.syncthreads()
            add_values(summed, weights, kv_tile, line, lane)
            base = unsigned(base + keys_in_tile)
        at_out = place(head, heads, to_out)
        for i in range(R):
            row, whole, distance = unsigned(start + entry(i, row_group, line, LINES)), total[i], 1
            while distance < LANES:
                whole += cuda.shfl_xor_sync(ALL, whole, distance)
                distance *= 2
            inverse = one / whole if whole != zero else zero  # a query that sees no key gets zeros
            if row < queries:
                for j in range(W):
                    column = entry(j, value_group, lane, LANES)
                    if column < width_v:
                        at = unsigned(at_out + row * unsigned(steps[6]) + column * unsigned(steps[7]))
                        out[at] = summed[i * W + j] * inverse
                if lane == 0:
                    at = unsigned(head * queries + row)
                    log_sum_exp[at] = best[i] + math.log(whole) if whole != zero else lowest

    return attention_tiles


def attention(q, k, v, scale, is_causal, window=None):
    """softmax(scale Q K^T) V and, for each query, the logarithm of the sum of exp(scale Q K^T).

    q (..., queries, width), k (..., keys, width), v (..., keys, values), whose leading dimensions broadcast; causal:
    query i sees the keys up to i, of these no more than the last `window` unless it is None. A query that sees no key
    gets zeros, and -inf.
    """
    heads = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    queries, keys, F = q.shape[-2], k.shape[-2], q.dtype.type
    shape = (*heads, queries, v.shape[-1])
    out = new_like(q, shape)
    log_sum_exp = CudaArray((*heads, queries), F)
    if log_sum_exp.size:
        width = padded_width(max(q.shape[-1], v.shape[-1]))
        tile = rows, _, lines, lanes = forward_tile(width * q.dtype.itemsize)
        tiles, arrays = -(-queries // rows), (out, q, k, v)
        launch(
            attention_kernel(F, width, tile), tiles * math.prod(heads), (lanes, lines), out, log_sum_exp, q, k, v,
            tiles, padded(heads, 1), *(leading(x, heads) for x in arrays), steps_of(q, k, v, out), queries, keys,
            q.shape[-1], v.shape[-1], F(scale), int(is_causal), queries if window is None else window,
        )  # fmt: skip
    return out, log_sum_exp
