"""Kernels compiled by Numba, for float32: one pass over memory where NumPy needs ten.

The NumPy code in elementwise.py, fused.py and gelu.py is the reference they are tested against.
`blocks.compiled()` imports this module, and with it Numba, when a large array first needs it. `nnan` is allowed only
where a maximum is taken: a NaN must come out of a kernel as a NaN.
"""

import math

import numpy as np

from minidl.kernels.cpu.compiling import FLAGS, njit

LOG2_E = np.float32(math.log2(math.e))
LN_2_HIGH = np.float32(0.693359375)  # exact in 10 bits, so that n * LN_2_HIGH is exact
LN_2_LOW = np.float32(math.log(2) - 0.693359375)
ONE, HALF, LIMIT = np.float32(1), np.float32(0.5), np.float32(87)
MINUS_INFINITY = np.float32(-np.inf)
C2, C3, C4, C5, C6 = (np.float32(1 / math.factorial(n)) for n in range(2, 7))
ERF_P = np.float32(0.3275911 * math.sqrt(0.5))
ERF_1, ERF_2, ERF_3, ERF_4, ERF_5 = (
    np.float32(a) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
INVERSE_ROOT_2_PI = np.float32(1 / math.sqrt(2 * math.pi))
GELU_LINEAR = np.float32(2 * math.sqrt(2 / math.pi))
GELU_CUBIC = np.float32(2 * math.sqrt(2 / math.pi) * 0.044715)
GELU_SLOPE = np.float32(3 * 2 * math.sqrt(2 / math.pi) * 0.044715)


@njit(fastmath=FLAGS, inline="always")
def exp(x):
    """e^x within 4e-7 for |x| < 87, beyond that e^87 or e^-87: 2^n times a Taylor polynomial, which LLVM vectorises."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN_2_HIGH - n * LN_2_LOW  # |r| <= ln 2 / 2
    p = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    return p * np.int32((np.int32(n) + 127) << 23).view(np.float32)


@njit(fastmath=FLAGS | {"nnan"})
def largest(row, end):
    m = row[0]
    for j in range(end):
        m = row[j] if row[j] > m else m
    return m


@njit(fastmath=FLAGS)
def attention_weights(scores, scale, is_causal):
    """scores (matrices, queries, keys), in place."""
    matrices, queries, keys = scores.shape
    for m in range(matrices):
        for i in range(queries):
            row = scores[m, i]
            end = min(i + 1, keys) if is_causal else keys
            top = largest(row, end) * scale
            sees = top != MINUS_INFINITY
            top = top if sees else np.float32(0)
            total = np.float32(0)
            for j in range(end):
                e = exp(row[j] * scale - top)
                row[j] = e
                total += e
            inverse = ONE / total if sees else np.float32(0)
            for j in range(end):
                row[j] *= inverse
            row[end:] = 0


@njit(fastmath=FLAGS)
def attention_weights_grad(grad, weights, scale):
    """grad and weights (rows, keys); grad in place."""
    for i in range(len(grad)):
        g, w = grad[i], weights[i]
        along = np.float32(0)
        for j in range(len(g)):
            along += g[j] * w[j]
        for j in range(len(g)):
            g[j] = (g[j] - along) * w[j] * scale


@njit(fastmath=FLAGS)
def relu(x, y):
    for i in range(len(x)):
        y[i] = np.float32(0) if x[i] <= np.float32(0) else x[i]


@njit(fastmath=FLAGS)
def relu_grad(grad, y, out):
    for i in range(len(y)):
        out[i] = np.float32(0) if y[i] <= np.float32(0) else grad[i]


@njit(fastmath=FLAGS)
def gelu_tanh(x, y):
    """0.5 x (1 + tanh u) = x / (1 + exp(-2u)); x, y flat."""
    for i in range(len(x)):
        v = x[i]
        y[i] = v / (ONE + exp(-v * (GELU_LINEAR + GELU_CUBIC * v * v)))


@njit(fastmath=FLAGS)
def gelu_tanh_grad(grad, x, out):
    """With s = 1 / (1 + exp(-2u)): d/dx = s + x s (1 - s) (2u)'."""
    for i in range(len(x)):
        v = x[i]
        s = ONE / (ONE + exp(-v * (GELU_LINEAR + GELU_CUBIC * v * v)))
        out[i] = grad[i] * (s + v * s * (ONE - s) * (GELU_LINEAR + GELU_SLOPE * v * v))


@njit(fastmath=FLAGS, inline="always")
def normal_tail(x, density):
    """The normal distribution function of -|x|, within 1e-7; density: exp(-x^2 / 2).

    Abramowitz and Stegun 1964, formula 7.1.26.
    """
    t = ONE / (ONE + ERF_P * abs(x))
    return HALF * density * t * (ERF_1 + t * (ERF_2 + t * (ERF_3 + t * (ERF_4 + t * ERF_5))))


@njit(fastmath=FLAGS)
def gelu_erf(x, y):
    """x times the normal distribution function; x, y flat."""
    for i in range(len(x)):
        v = x[i]
        tail = normal_tail(v, exp(-HALF * v * v))
        y[i] = v * (tail if v < 0 else ONE - tail)


@njit(fastmath=FLAGS)
def gelu_erf_grad(grad, x, out):
    """d/dx = distribution + x density."""
    for i in range(len(x)):
        v = x[i]
        e = exp(-HALF * v * v)
        tail = normal_tail(v, e)
        out[i] = grad[i] * ((tail if v < 0 else ONE - tail) + v * e * INVERSE_ROOT_2_PI)


@njit()
def add_both(a, b):
    """Both become their sum."""
    for i in range(len(a)):
        total = a[i] + b[i]
        a[i] = total
        b[i] = total
