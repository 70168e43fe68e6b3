"""Tools for tests: derivatives held to finite differences."""

from collections.abc import Callable

import numpy as np

from minidl.creation import tensor
from minidl.tensor import Tensor, float64, no_grad


def gradcheck(function: Callable[..., Tensor], *inputs, eps: float = 1e-6, tolerance: float = 1e-6) -> None:
    """Compare the gradients that `function` gives with central differences, in float64.

    inputs: tensors or arrays; those of floats are differentiated. The result, of any shape, is weighted by fixed random
    numbers, so that a gradient that goes to the wrong element is seen. AssertionError names the input and the largest
    error, absolute up to 1 and relative above. Keep away from kinks: relu at 0, say.
    """
    tensors = []
    for x in inputs:
        values = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
        differentiable = values.dtype.kind == "f"
        tensors.append(tensor(values, float64 if differentiable else None, requires_grad=differentiable))
    out = function(*tensors)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, out.shape)
    out.backward(tensor(weights, float64))

    def value() -> float:
        with no_grad():
            return float(np.sum(function(*tensors).numpy() * weights))

    for number, x in enumerate(tensors):
        if not x.requires_grad:
            continue
        numeric = np.zeros(x.shape)
        for place in np.ndindex(*x.shape):
            original = x.data[place]
            x.data[place] = original + eps
            above = value()
            x.data[place] = original - eps
            below = value()
            x.data[place] = original
            numeric[place] = (above - below) / (2 * eps)
        if x.grad is None:
            raise AssertionError(f"input {number} got no gradient")
        analytic = x.grad.numpy()
        if analytic.shape != x.shape:
            raise AssertionError(f"input {number} has shape {x.shape}, its gradient {analytic.shape}")
        error = np.abs(analytic - numeric) / np.maximum(1, np.abs(numeric))
        if error.size and not error.max() <= tolerance:
            raise AssertionError(f"input {number}: the gradient is off by {error.max():.2e}, allowed {tolerance:.0e}")
