"""Optimizer updates compiled, for float32: one pass over memory where NumPy needs ten."""

import functools
import math

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE
from minidl.kernels.cpu.fast.threads import THREAD, split
from minidl.kernels.update_rules import rules


def apply(update, parameter, gradient):
    """Do an `update_kernels.Update` on 1-D arrays, cut over threads; gives its sum, if it has one."""
    arrays, kernel = (gradient, parameter, *update.state), _kernel(update.rule, len(update.state), update.sums)
    scale, decay, *numbers = map(np.float32, (update.scale, update.decay, *update.numbers))
    numbers = tuple(numbers)
    if update.sums:
        return kernel(*arrays, scale, decay, numbers)
    split(parameter.size, lambda part: kernel(*(x[part] for x in arrays), scale, decay, numbers), THREAD)
    return None


@functools.cache
def _kernel(name: str, states: int, sums: bool):
    """The loop of a rule, which machine code on disk is found by."""
    loop = _sum2(RULES[name]) if sums else (_loop0, _loop1, _loop2, _loop3)[states](RULES[name])
    loop.__qualname__ = name
    return njit(fastmath=FLAGS)(loop)


@njit(fastmath=FLAGS, inline="always")
def _maximum(a, b):
    return a if a > b or a != a else b


@njit(fastmath=FLAGS, inline="always")
def _sign(x):
    return ONE if x > 0 else -ONE if x < 0 else x


RULES = {name: njit(fastmath=FLAGS)(rule) for name, rule in rules(ONE, math.sqrt, _maximum, _sign).items()}


# The loops, by how many arrays a rule has for its state


def _loop0(rule):
    def loop(gradient, parameter, scale, decay, numbers):
        for i in range(len(parameter)):
            p = parameter[i]
            (parameter[i],) = rule(gradient[i] * scale + decay * p, p, *numbers)

    return loop


def _loop1(rule):
    def loop(gradient, parameter, a, scale, decay, numbers):
        for i in range(len(parameter)):
            p = parameter[i]
            parameter[i], a[i] = rule(gradient[i] * scale + decay * p, p, a[i], *numbers)

    return loop


def _loop2(rule):
    def loop(gradient, parameter, a, b, scale, decay, numbers):
        for i in range(len(parameter)):
            p = parameter[i]
            parameter[i], a[i], b[i] = rule(gradient[i] * scale + decay * p, p, a[i], b[i], *numbers)

    return loop


def _loop3(rule):
    def loop(gradient, parameter, a, b, c, scale, decay, numbers):
        for i in range(len(parameter)):
            p = parameter[i]
            parameter[i], a[i], b[i], c[i] = rule(gradient[i] * scale + decay * p, p, a[i], b[i], c[i], *numbers)

    return loop


def _sum2(rule):
    def loop(gradient, parameter, a, b, scale, decay, numbers):
        total = 0.0
        for i in range(len(parameter)):
            p = parameter[i]
            first, a[i], b[i] = rule(gradient[i] * scale + decay * p, p, a[i], b[i], *numbers)
            total += np.float64(first)
        return total

    return loop
