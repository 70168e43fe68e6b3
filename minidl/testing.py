"""Tools for tests: derivatives held to finite differences."""

from collections.abc import Callable

import numpy as np

from minidl.autograd import grad
from minidl.creation import tensor
from minidl.tensor import Tensor, enable_grad, float64, no_grad


def gradcheck(function: Callable, *inputs, eps: float = 1e-6, tolerance: float = 1e-6) -> None:
    """Compare the gradients that `function` gives with central differences, in float64.

    inputs: tensors or arrays; those of floats are differentiated. The result is a tensor of any shape or several; it is
    weighted by fixed random numbers, so that a gradient that goes to the wrong element is seen. AssertionError names
    the input and the largest error, absolute up to 1 and relative above. Keep away from kinks: relu at 0, say.
    """
    tensors = _leaves(inputs)
    outputs = _outputs(function(*tensors))
    weights = _weights(outputs)
    differentiable = [x for x in tensors if x.requires_grad]
    taped = [(out, tensor(weight)) for out, weight in zip(outputs, weights, strict=True) if out.requires_grad]
    found = iter([None] * len(differentiable))
    if taped:
        found = iter(grad([x for x, _ in taped], differentiable, [weight for _, weight in taped], allow_unused=True))

    def value() -> float:
        with no_grad():
            outputs = _outputs(function(*tensors))
        return sum(float(np.sum(out.numpy() * weight)) for out, weight in zip(outputs, weights, strict=True))

    for number, x in enumerate(tensors):
        if x.requires_grad:
            _compare(number, x, next(found), _central_differences(value, x.data, eps), tolerance)


def gradgradcheck(function: Callable, *inputs, eps: float = 1e-6, tolerance: float = 1e-6) -> None:
    """Compare the second derivatives that `function` gives with central differences of its gradients, in float64.

    Its gradients, with respect to all inputs of floats and weighted by random numbers, are themselves a function of
    these inputs and of the weights: that one is given to `gradcheck`.
    """
    tensors = _leaves(inputs)
    weights = _weights(_outputs(function(*tensors)))
    differentiable = [i for i, x in enumerate(tensors) if x.requires_grad]

    def gradients(*arguments):
        x, weights = arguments[: len(tensors)], arguments[len(tensors) :]
        if not any(x[i].requires_grad for i in differentiable):  # within no_grad: the finite differences
            x = [value.detach().requires_grad_(i in differentiable) for i, value in enumerate(x)]
        with enable_grad():
            outputs = _outputs(function(*x))
            found = grad(outputs, [x[i] for i in differentiable], weights, create_graph=True, allow_unused=True)
        return [g for g in found if g is not None]

    gradcheck(gradients, *tensors, *weights, eps=eps, tolerance=tolerance)


def _leaves(inputs) -> list[Tensor]:
    """The inputs as new tensors, those of floats as float64 leaves."""
    tensors = []
    for x in inputs:
        values = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
        floats = values.dtype.kind == "f"
        tensors.append(tensor(values, float64 if floats else None, requires_grad=floats))
    return tensors


def _outputs(result) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _weights(outputs: list[Tensor]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.uniform(0.5, 1.5, out.shape) for out in outputs]


def _central_differences(value: Callable[[], float], x: np.ndarray, eps: float) -> np.ndarray:
    """The derivatives of `value()` with respect to the elements of x, which it reads."""
    numeric = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        original = x[place]
        x[place] = original + eps
        above = value()
        x[place] = original - eps
        below = value()
        x[place] = original
        numeric[place] = (above - below) / (2 * eps)
    return numeric


def _compare(number: int, x: Tensor, gradient: Tensor | None, numeric: np.ndarray, tolerance: float) -> None:
    analytic = np.zeros(x.shape) if gradient is None else gradient.numpy()
    if analytic.shape != x.shape:
        raise AssertionError(f"input {number} has shape {x.shape}, its gradient {analytic.shape}")
    error = np.abs(analytic - numeric) / np.maximum(1, np.abs(numeric))
    if error.size and not error.max() <= tolerance:
        missing = ", there is none" if gradient is None else ""
        raise AssertionError(
            f"input {number}: the gradient is off by {error.max():.2e}, allowed {tolerance:.0e}{missing}"
        )
