"""Philox4x32-10: random numbers that are a function of a counter and a key (Salmon, Moraes, Dror and Shaw 2011).

There is no state between them, so any element of a mask can be drawn by itself, in any order and on any device. The
functions are plain enough for Numba to compile them for the CPU and for CUDA, and NumPy gives them whole arrays.
"""

import numpy as np

ROUNDS = 10
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # 2^32 times the fractions of the golden ratio, sqrt(3)
WORD = np.uint64(32)  # bits
LOWEST, SPACING = np.uint32(8), np.float32(2**-24)  # bits left out of a float32, whose precision is 24 bits


def philox(c0, c1, c2, c3, k0, k1):
    """Four random words of the counter (c0, c1, c2, c3) under the key (k0, k1), all of uint32."""
    # What may pass 32 bits is computed in 64: no scalar overflows, and the product of two words is one instruction
    for _ in range(ROUNDS):
        product_0, product_1 = MULTIPLIER_0 * np.uint64(c0), MULTIPLIER_1 * np.uint64(c2)
        c0, c1 = np.uint32((product_1 >> WORD) ^ c1 ^ k0), np.uint32(product_1)
        c2, c3 = np.uint32((product_0 >> WORD) ^ c3 ^ k1), np.uint32(product_0)
        k0, k1 = np.uint32(np.uint64(k0) + WEYL_0), np.uint32(np.uint64(k1) + WEYL_1)
    return c0, c1, c2, c3


def uniform(word):
    """The upper 24 bits of a word as a float32 in [0, 1)."""
    return np.float32(np.int32(word >> LOWEST)) * SPACING
