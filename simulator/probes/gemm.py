"""Matrix products on one core."""

from __future__ import annotations

import itertools
import operator
import time
from collections import deque
from collections.abc import Sequence
from itertools import product

import numpy as np

from simulator.compute.measured import SMALL
from simulator.probes.timing import median_seconds

POOL, PLACES = 16 << 20, 16  # bytes, more than the caches of a core; places in it


def gemm_seconds(sizes: Sequence[int]) -> list[float]:
    """Times of (m, k) @ (n, k)^T in float32 for all of the sizes, m slowest and k fastest.

    As in training, no product finds its operands where the one before left its own: in a core's nearest caches.
    """
    pool = np.ones(POOL // 4, np.float32)
    return [_product_seconds(pool, m, n, k) for m, n, k in product(sizes, repeat=3)]


def _product_seconds(pool: np.ndarray, m: int, n: int, k: int) -> float:
    """Of one product, whose operands are taken from one place of the pool after another; small ones from the first."""
    size = (m + n) * k
    places = min(PLACES, pool.size // size) if 4 * size > SMALL else 1
    parts = [pool[i * size : (i + 1) * size] for i in range(places)]
    operands = itertools.cycle([(part[: m * k].reshape(m, k), part[m * k :].reshape(n, k).T) for part in parts])
    results: deque[np.ndarray] = deque(maxlen=places)
    return median_seconds(lambda: results.append(operator.matmul(*next(operands))), 1.5e-3, now=time.thread_time)
