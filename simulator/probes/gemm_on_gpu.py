"""Matrix products on a GPU."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from itertools import product

import numpy as np

from minidl import kernels
from minidl.bench.gpu_timing import mean_seconds
from simulator.compute.measured import SMALL

POOL, PLACES = 256 << 20, 16  # bytes of operands, more than the caches of a GPU; places in which these lie


def gemm_seconds(sizes: Sequence[int]) -> list[float]:
    """Times of (m, k) @ (n, k)^T in float32 for all of the sizes, m slowest and k fastest.

    Products follow one another as in training: small ones take as long as the host needs to launch them, and no large
    one finds its operands in the caches.
    """
    return [_product_seconds(m, n, k) for m, n, k in product(sizes, repeat=3)]


def _product_seconds(m: int, n: int, k: int) -> float:
    on_gpu, nbytes = kernels.for_device("cuda"), 4 * (m + n) * k
    places = max(2, min(PLACES, POOL // nbytes)) if nbytes > SMALL else 1
    pairs = [
        (on_gpu.full((m, k), 1.0, np.float32), on_gpu.swap_last(on_gpu.full((n, k), 1.0, np.float32)))
        for _ in range(places)
    ]
    operands, results = itertools.cycle(pairs), deque(maxlen=places)
    # Until the first result goes, each needs memory of its own
    return mean_seconds(lambda: results.append(on_gpu.matmul(*next(operands))), warm_up=places + 1)
