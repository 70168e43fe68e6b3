"""Adafactor, which keeps of a matrix of squared gradients the means of its rows and columns alone."""

import math

import numpy as np

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, require


class Adafactor(Optimizer):
    """Adaptive learning rates with little memory (Shazeer and Stern 2018, algorithms 4 and 5), in PyTorch's form.

    share = t^beta2_decay
    R = (1 - share) * R + share * mean of gradient^2 along each row
    C = (1 - share) * C + share * mean of gradient^2 along each column
    u = gradient / sqrt(R C / mean(R))
    p = p - lr * weight_decay * p - max(eps[1], rms(p)) * min(lr, 1 / sqrt(t)) * u / max(1, rms(u) / d)

    rms is the root of the mean square over all elements; R and C are of the last two dimensions. What has fewer has
    the mean of gradient^2 itself in place of R C / mean(R). eps: eps[0], by default the smallest step from 1 that the
    dtype has, is the least root of what is divided by.

    It takes whole parameters: ValueError where ranks hold parts of one.
    """

    whole = True

    def __init__(
        self, params: Params, lr: float = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def check(self, options):
        super().check(options)
        decay, eps, d = options["beta2_decay"], options["eps"], options["d"]
        require(decay <= 0, f"beta2_decay={decay}, it must not be positive")
        require(len(eps) == 2 and min(eps[0] or 0, eps[1]) >= 0, f"eps={eps}, it must be two numbers, not negative")
        require(d >= 1, f"d={d}, it must be at least 1")

    def state_size(self, key, parameter):
        if key not in ("rows", "columns"):
            return super().state_size(key, parameter)
        return parameter.numel() // parameter.shape[-1 if key == "rows" else -2]

    def update(self, parameter, gradient, state, options, scale):
        k, lr, (eps, least) = for_array(parameter), options["lr"], options["eps"]
        eps = float(np.finfo(parameter.dtype).eps) if eps is None else eps
        if not state:
            state["step"] = 0
        state["step"] += 1
        share = state["step"] ** options["beta2_decay"]
        flat, gradient = k.reshape(parameter, (-1,)), k.multiply(gradient, scale)
        mean_square = _mean_square(k, gradient, state, share, eps)
        step = k.divide(gradient, k.maximum(k.sqrt(mean_square), eps))
        step = k.reshape(step, (-1,))
        size = math.sqrt(parameter.size)
        rate = max(least, math.sqrt(k.squared_norm(flat)) / size) * min(lr, state["step"] ** -0.5)
        rate /= max(1.0, math.sqrt(k.squared_norm(step)) / (size * options["d"]))
        k.sgd_update(flat, step, None, 1.0, 0.0, 0.0, lr * options["weight_decay"], False, rate)


def _mean_square(k, gradient, state, share, eps):
    """An estimate of the mean of gradient^2, in its shape."""
    square = k.multiply(gradient, gradient)
    if len(gradient.shape) < 2:
        return _moved(k, state, "square", square, share)
    last = len(gradient.shape) - 1
    rows = _moved(k, state, "rows", _mean(k, square, last), share)
    columns = _moved(k, state, "columns", _mean(k, square, last - 1), share)
    return k.divide(k.multiply(rows, columns), k.maximum(_mean(k, rows, last - 1), eps))


def _mean(k, x, dim):
    return k.divide(k.sum(x, (dim,), True), x.shape[dim])


def _moved(k, state, key, new, share):
    """The running mean `key`, which is kept flat, moved on to the array `new` by a `share`; in the shape of that."""
    if key not in state:
        state[key] = k.full((new.size,), 0, new.dtype)
    kept = state[key]
    k.assign(kept, k.add(k.multiply(kept, 1 - share), k.multiply(k.reshape(new, (-1,)), share)))
    return k.reshape(kept, new.shape)
