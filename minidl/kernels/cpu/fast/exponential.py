"""The exponential function of float32, compiled: a polynomial, which LLVM vectorises as no call of a library."""

import math

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit

LOG2_E = np.float32(math.log2(math.e))
LN_2_HIGH = np.float32(0.693359375)  # exact in 10 bits, so that n * LN_2_HIGH is exact
LN_2_LOW = np.float32(math.log(2) - 0.693359375)
ONE, HALF, LIMIT = np.float32(1), np.float32(0.5), np.float32(87)
C2, C3, C4, C5, C6 = (np.float32(1 / math.factorial(n)) for n in range(2, 7))


@njit(fastmath=FLAGS, inline="always")
def exp(x):
    """e^x within 4e-7 for |x| < 87, beyond that e^87 or e^-87: 2^n times a Taylor polynomial, which LLVM vectorises."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN_2_HIGH - n * LN_2_LOW  # |r| <= ln 2 / 2
    p = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    return p * np.int32((np.int32(n) + 127) << 23).view(np.float32)
