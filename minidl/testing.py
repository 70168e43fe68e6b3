"""Tools for tests: derivatives held to finite differences."""

from collections.abc import Callable, Iterator

import numpy as np

from minidl.autograd import grad
from minidl.creation import tensor
from minidl.dtypes import float64
from minidl.grad_mode import enable_grad, no_grad
from minidl.tensor import Tensor


def gradcheck(function: Callable, *inputs, eps: float = 1e-6, tolerance: float = 1e-6, fast_mode: bool = False) -> None:
    """Compare the gradients that `function` gives with central differences, in float64.

    inputs: tensors or arrays; those of floats are differentiated. The result is a tensor of any shape or several; it is
    weighted by fixed random numbers, so that a gradient that goes to the wrong element is seen. AssertionError names
    the input and the largest error, absolute up to 1 and relative above. Keep away from kinks: relu at 0, say.
    fast_mode: compare, for each input, the derivative in one random direction only, not those of all its elements.
    """
    tensors = _leaves(inputs)
    outputs = _outputs(function(*tensors))
    weights = _weights(outputs)
    differentiable = [x for x in tensors if x.requires_grad]
    differentiated = [(out, tensor(weight)) for out, weight in zip(outputs, weights, strict=True) if out.requires_grad]
    found = iter([None] * len(differentiable))
    if differentiated:
        outs, out_weights = zip(*differentiated, strict=True)
        found = iter(grad(outs, differentiable, out_weights, allow_unused=True))

    def value() -> float:
        with no_grad():
            outputs = _outputs(function(*tensors))
        return sum(float(np.sum(out.numpy() * weight)) for out, weight in zip(outputs, weights, strict=True))

    for number, x in enumerate(tensors):
        if x.requires_grad:
            _compare(number, x, next(found), value, eps, tolerance, fast_mode)


def gradgradcheck(
    function: Callable, *inputs, eps: float = 1e-6, tolerance: float = 1e-6, fast_mode: bool = False
) -> None:
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

    gradcheck(gradients, *tensors, *weights, eps=eps, tolerance=tolerance, fast_mode=fast_mode)


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


def _compare(
    number: int, x: Tensor, gradient: Tensor | None, value: Callable[[], float], eps: float, tolerance: float,
    fast_mode: bool,
) -> None:  # fmt: skip
    """Compare the gradient of value() with respect to `x`, input `number`, which it reads, with central differences."""
    analytic = np.zeros(x.shape) if gradient is None else gradient.numpy()
    if analytic.shape != x.shape:
        raise AssertionError(f"input {number} has shape {x.shape}, its gradient {analytic.shape}")
    directions = [_direction(number, x.shape)] if fast_mode else _unit_arrays(x.shape)
    pairs = [(np.sum(analytic * d), _central_difference(value, x.data, d, eps)) for d in directions]
    found, numeric = np.reshape(pairs, (-1, 2)).T
    error = np.abs(found - numeric) / np.maximum(1, np.abs(numeric))
    if error.size and not error.max() <= tolerance:
        missing = ", there is none" if gradient is None else ""
        raise AssertionError(
            f"input {number}: the gradient is off by {error.max():.2e}, allowed {tolerance:.0e}{missing}"
        )


def _direction(number: int, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(number)
    return generator.choice([-1.0, 1.0], shape) * generator.uniform(0.5, 1.5, shape)


def _unit_arrays(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Arrays of zeros with a single one, for each place in turn."""
    for place in np.ndindex(*shape):
        unit = np.zeros(shape)
        unit[place] = 1
        yield unit


def _central_difference(value: Callable[[], float], x: np.ndarray, direction: np.ndarray, eps: float) -> float:
    """The derivative of `value()` as x, which it reads, goes in a direction."""
    original = x.copy()
    x[...] = original + eps * direction
    above = value()
    x[...] = original - eps * direction
    below = value()
    x[...] = original
    return (above - below) / (2 * eps)
