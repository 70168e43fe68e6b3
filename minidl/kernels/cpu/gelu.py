"""GELU, and the error function it needs."""

import functools
import math

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.fast.cache_blocks import in_blocks
from minidl.kernels.cpu.images import in_order_of

__all__ = ["erf", "gelu", "gelu_grad"]


def gelu(x, approximate):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016); approximate: "none" or "tanh"."""
    if fast.use_compiled(x):
        return fast.elementwise.gelu(x, approximate)
    return in_blocks(_gelu_tanh if approximate == "tanh" else _gelu_erf, x)


def gelu_grad(grad, x, approximate):
    """The gradient of x, which is the input of gelu, in its shape."""
    if fast.use_compiled(x):
        return fast.elementwise.gelu_grad(in_order_of(x, grad), x, approximate)
    return in_blocks(_gelu_tanh_grad if approximate == "tanh" else _gelu_erf_grad, x, grad)


ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


def _gelu_tanh(x):
    t = x * x
    t *= 0.044715 * ROOT_2_OVER_PI
    t += ROOT_2_OVER_PI
    t *= x
    np.tanh(t, out=t)
    t += 1
    t *= x
    t *= 0.5
    return t


def _gelu_tanh_grad(x, grad):
    square = x * x
    inner = square * (0.044715 * ROOT_2_OVER_PI)
    inner += ROOT_2_OVER_PI
    inner *= x
    t = np.tanh(inner, out=inner)
    slope = square * (3 * 0.044715 * ROOT_2_OVER_PI)
    slope += ROOT_2_OVER_PI
    slope *= x
    slope *= 1 - t * t
    slope += t
    slope += 1
    slope *= 0.5
    slope *= grad
    return slope


def _gelu_erf(x):
    y = _erf(x * math.sqrt(0.5))
    y += 1
    y *= x
    y *= 0.5
    return y


def _gelu_erf_grad(x, grad):
    density = np.exp(x * x * -0.5)
    density *= x
    density *= 1 / math.sqrt(2 * math.pi)
    density += (_erf(x * math.sqrt(0.5)) + 1) * 0.5
    density *= grad
    return density


def erf(x):
    """The error function of each element, which NumPy lacks: within 3e-7 (float32) or 1e-15 (float64)."""
    return in_blocks(_erf, x)


def _erf(x):
    size = np.minimum(np.abs(x), ERF_RANGE)
    t = 2 / (2 + size)
    tail = t * np.exp(_erfc_polynomial(x.dtype.name)(t) - size * size)  # erfc(|x|)
    return np.copysign(1 - tail, x)


ERF_RANGE = 6.0  # erf is 1 beyond, to 16 digits


@functools.cache
def _erfc_polynomial(dtype):
    """p with erfc(z) = t exp(p(t) - z^2), t = 2 / (2 + z), z in [0, ERF_RANGE]: interpolated at Chebyshev points."""

    def exact(t):
        z = 2 / t - 2
        return np.array([math.log(math.erfc(a) / b) + a * a for a, b in zip(z, t, strict=True)])

    domain = [2 / (2 + ERF_RANGE), 1]
    series = np.polynomial.Chebyshev.interpolate(exact, 10 if dtype == "float32" else 24, domain)
    coefficients = series.coef.astype(dtype)
    offset, scale = series.mapparms()

    def polynomial(t):  # Clenshaw's recurrence
        u = (t * scale + offset).astype(dtype)
        b, b_next = np.zeros_like(u), np.zeros_like(u)
        for c in coefficients[:0:-1]:
            b, b_next = c + 2 * u * b - b_next, b
        return coefficients[0] + u * b - b_next

    return polynomial
