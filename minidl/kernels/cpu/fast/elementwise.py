"""Activations compiled, for float32: one pass over memory where NumPy needs up to ten."""

import math
from collections.abc import Callable

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import HALF, ONE, exp
from minidl.kernels.cpu.fast.threads import THREAD, split

ERF_P = np.float32(0.3275911 * math.sqrt(0.5))
ERF_1, ERF_2, ERF_3, ERF_4, ERF_5 = (
    np.float32(a) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
INVERSE_ROOT_2_PI = np.float32(1 / math.sqrt(2 * math.pi))
GELU_LINEAR = np.float32(2 * math.sqrt(2 / math.pi))
GELU_CUBIC = np.float32(2 * math.sqrt(2 / math.pi) * 0.044715)
GELU_SLOPE = np.float32(3 * 2 * math.sqrt(2 / math.pi) * 0.044715)


def relu(x):
    return by_element(_relu, x)


def relu_grad(grad, y):
    return by_element(_relu_grad, grad, y)


def gelu(x, approximate):
    return by_element(_gelu_tanh if approximate == "tanh" else _gelu_erf, x)


def gelu_grad(grad, x, approximate):
    return by_element(_gelu_tanh_grad if approximate == "tanh" else _gelu_erf_grad, grad, x)


def by_element(kernel: Callable, *arrays):
    """The result of kernel(*arrays, result) over the elements of arrays of one shape, cut over threads."""
    result = np.empty_like(arrays[0])
    flat = in_memory_order(*arrays, result)
    if flat is None:
        result = np.empty(result.shape, result.dtype)
        flat = [np.ravel(array) for array in (*arrays, result)]
    split(result.size, lambda part: kernel(*(array[part] for array in flat)), THREAD)
    return result


def in_memory_order(*arrays):
    """The elements of arrays of one shape as flat views, in the order in which all lie in memory; None if they do not.

    Images with channels last, say, are then gone through as they lie.
    """
    first = arrays[0]
    order = sorted(range(first.ndim), key=lambda dim: -first.strides[dim])
    turned = [array.transpose(order) for array in arrays]
    return [array.reshape(-1) for array in turned] if all(array.flags.c_contiguous for array in turned) else None


@njit(fastmath=FLAGS)
def _relu(x, y):
    for i in range(len(x)):
        y[i] = np.float32(0) if x[i] <= np.float32(0) else x[i]


@njit(fastmath=FLAGS)
def _relu_grad(grad, y, out):
    for i in range(len(y)):
        out[i] = np.float32(0) if y[i] <= np.float32(0) else grad[i]


@njit(fastmath=FLAGS)
def _gelu_tanh(x, y):
    """0.5 x (1 + tanh u) = x / (1 + exp(-2u)); x, y flat."""
    for i in range(len(x)):
        v = x[i]
        y[i] = v / (ONE + exp(-v * (GELU_LINEAR + GELU_CUBIC * v * v)))


@njit(fastmath=FLAGS)
def _gelu_tanh_grad(grad, x, out):
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
def _gelu_erf(x, y):
    """x times the normal distribution function; x, y flat."""
    for i in range(len(x)):
        v = x[i]
        tail = normal_tail(v, exp(-HALF * v * v))
        y[i] = v * (tail if v < 0 else ONE - tail)


@njit(fastmath=FLAGS)
def _gelu_erf_grad(grad, x, out):
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
