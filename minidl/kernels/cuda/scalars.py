"""What one thread computes from the elements at one place: a table of functions of numbers.

They are compiled into the maps of elementwise.py. `F` is the type of the numbers, np.float32, say: a plain 0.5 would
make float64 of them, in which a GPU is slow.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from minidl.kernels.cuda.target import cuda

ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


TURNED = ", turned"  # after the name of a function of two numbers: its arguments are exchanged


@functools.cache
def scalar(name: str, F: type) -> Callable:
    """The function `name` of numbers of type F, to be called in kernels."""
    table = TABLES[np.dtype(F).kind](F)
    if not name.endswith(TURNED):
        return cuda.jit(device=True)(table[name])
    function = scalar(name.removesuffix(TURNED), F)
    return cuda.jit(device=True)(lambda a, b: function(b, a))


def anything(F):
    """Functions of numbers, of integers and of bools."""
    return {
        "number": lambda number: number,
        "same": lambda x: x,
        "equal": lambda a, b: a == b,
        "not_equal": lambda a, b: a != b,
        "greater": lambda a, b: a > b,
        "greater_equal": lambda a, b: a >= b,
        "less": lambda a, b: a < b,
        "less_equal": lambda a, b: a <= b,
        "maximum": lambda a, b: a if a >= b or a != a else b,  # NaN if one is
        "minimum": lambda a, b: a if a <= b or a != a else b,
        "where": lambda condition, a, b: a if condition else b,
        "where, of a number": lambda condition, b, a: a if condition else b,
        "masked": lambda x, mask: x if mask else F(0),
        "logical_and": lambda a, b: bool(a) and bool(b),
        "logical_or": lambda a, b: bool(a) or bool(b),
        "logical_not": lambda x: not x,
        "isnan": lambda x: x != x,
    }


def numbers(F):
    """Functions of numbers and of integers."""
    zero, one = F(0), F(1)
    return anything(F) | {
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "multiply": lambda a, b: a * b,
        "negative": lambda x: -x,
        "absolute": lambda x: abs(x),
        "sign": lambda x: one if x > zero else -one if x < zero else zero,  # 0 of NaN
        "relu": lambda x: zero if x <= zero else x,
        "relu_grad": lambda grad, y: zero if y <= zero else grad,
        "floor_divide": lambda a, b: a // b,
        "remainder": lambda a, b: a % b,
        "clamp_low": lambda x, low: low if x < low else x,
        "clamp_high": lambda x, high: high if x > high else x,
        "clamp": lambda x, low, high: high if x > high or low > high else low if x < low else x,
    }


def integers(F):
    """Functions of integers alone."""
    one, zero = F(1), F(0)

    def power(a, b):
        """By squaring; 0 for a negative power of anything but 1 and -1, as it is cut to an integer."""
        if b < zero:
            return one if a == one else zero if a != -one else one if b % F(2) == zero else -one
        result = one
        while b > zero:
            if b % F(2) == one:
                result *= a
            a *= a
            b //= F(2)
        return result

    return numbers(F) | {
        "power": power,
        # How far index i of n lies from the first: the nearest that there is.
        "stepped": lambda i, n, step: min(max(i + n if i < zero else i, zero), n - one) * step,
        "isinf": lambda x: False,
        "isfinite": lambda x: True,
        "floor": lambda x: x,
        "ceil": lambda x: x,
        "round": lambda x: x,
        "bitwise_and": lambda a, b: a & b,
        "bitwise_or": lambda a, b: a | b,
        "bitwise_xor": lambda a, b: a ^ b,
        "bitwise_not": lambda x: ~x,
    }


def bools(F):
    """Functions of bools alone."""
    return anything(F) | {
        "bitwise_and": lambda a, b: a and b,
        "bitwise_or": lambda a, b: a or b,
        "bitwise_xor": lambda a, b: a != b,
        "bitwise_not": lambda x: not x,
        "sign": lambda x: x,
        "isinf": lambda x: False,
        "isfinite": lambda x: True,
    }


def floats(F):
    """Functions of floats alone."""
    zero, one, half, three = F(0), F(1), F(0.5), F(3)
    infinity, far = F(math.inf), F(1.5 * 2 ** np.finfo(F).nmant)
    inner, cubic, root_half = F(ROOT_2_OVER_PI), F(CUBIC), F(math.sqrt(0.5))
    density = F(1 / math.sqrt(2 * math.pi))

    @cuda.jit(device=True)
    def floor(x):
        return x if abs(x) == infinity else x - x % one

    def round(x):
        """To the nearest, to even at halves: far from 0 there are no fractions."""
        return x if abs(x) >= far / three else x + far - far if x > zero else -(far - x - far)

    def isclose(a, b, rtol, atol, equal_nan):
        if a != a or b != b:
            return equal_nan != zero and a != a and b != b
        return a == b or (abs(b) != infinity and abs(a - b) <= atol + rtol * abs(b))

    def gelu_tanh_grad(grad, x):
        t = math.tanh(inner * x * (one + cubic * x * x))
        return grad * half * (one + t + x * (one - t * t) * inner * (one + three * cubic * x * x))

    def gelu_none_grad(grad, x):
        normal = half * (one + math.erf(x * root_half))
        return grad * (normal + x * density * math.exp(-half * x * x))

    return numbers(F) | {
        "divide": lambda a, b: a / b,
        "power": lambda a, b: math.pow(a, b),
        "exp": lambda x: math.exp(x),
        "expm1": lambda x: math.expm1(x),
        "log": lambda x: math.log(x),
        "log1p": lambda x: math.log1p(x),
        "log2": lambda x: math.log2(x),
        "sqrt": lambda x: math.sqrt(x),
        "sin": lambda x: math.sin(x),
        "cos": lambda x: math.cos(x),
        "tanh": lambda x: math.tanh(x),
        "erf": lambda x: math.erf(x),
        "isinf": lambda x: abs(x) == infinity,
        "isfinite": lambda x: abs(x) < infinity,
        "isclose": isclose,
        "floor": floor.py_func,
        "ceil": lambda x: -floor(-x),
        "round": round,
        "sigmoid": lambda x: one / (one + math.exp(-x)),
        "gelu_none": lambda x: half * x * (one + math.erf(x * root_half)),
        "gelu_none_grad": gelu_none_grad,
        "gelu_tanh": lambda x: half * x * (one + math.tanh(inner * x * (one + cubic * x * x))),
        "gelu_tanh_grad": gelu_tanh_grad,
        "dropout_grad": lambda grad, mask, scale: grad * (scale if mask else zero),
    }


TABLES = {"f": floats, "i": integers, "b": bools}
