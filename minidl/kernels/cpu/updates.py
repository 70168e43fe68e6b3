"""Optimizer updates: the rules of update_rules.py on arrays, in place."""

import numpy as np

from minidl.kernels import update_kernels
from minidl.kernels.cpu import fast
from minidl.kernels.cpu.fast.cache_blocks import blocks
from minidl.kernels.update_rules import rules

__all__ = update_kernels.NAMES

RULES = rules(1, np.sqrt, np.maximum, np.sign)
COMPILED_FROM = 1 << 15  # elements: NumPy makes up to 20 passes
SGD_COMPILED_FROM = 1 << 17  # elements: it makes so few passes that NumPy is not much slower for fewer


def _apply(name, update, parameter, gradient):
    """Do the update `name`, block by block; gives the sum of the rule's first results, if the update sums."""
    if fast.use_compiled(parameter, SGD_COMPILED_FROM if "sgd" in update.rule else COMPILED_FROM):
        return fast.updates.apply(update, parameter, gradient)
    rule, total = RULES[update.rule], 0.0
    for part in blocks(slice(0, parameter.size)):
        g, p = gradient[part] * update.scale, parameter[part]
        if update.decay:
            g += update.decay * p
        first, *state = rule(g, p, *(x[part] for x in update.state), *update.numbers)
        for x, new in zip(update.state, state, strict=True):
            x[part] = new
        if update.sums:
            total += float(first.sum(dtype=np.float64))
        else:
            p[:] = first
    return total if update.sums else None


(
    sgd_update, adam_update, lamb_moments_update, adagrad_update, adadelta_update, rmsprop_update, lion_update,
) = update_kernels.kernels(_apply)  # fmt: skip
