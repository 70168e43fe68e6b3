"""Optimizer: what all of them share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidl.nn.module import Parameter
from minidl.tensor import Tensor


class Optimizer:
    """Changes parameters by their gradients.

    A subclass writes `update`, elementwise on flat arrays, so that a slice of a parameter can be updated on its own
    with a slice of its gradient and a state of its own.

    lr: the learning rate; it may be set between steps.
    state_size_per_parameter: how many elements of state an element of a parameter has.
    """

    state_size_per_parameter = 0

    def __init__(self, parameters: Iterable[Parameter], lr: float):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("the optimizer got no parameters")
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"the optimizer needs nn.Parameters, number {i} is a {type(parameter).__name__}")
        require(lr >= 0, f"lr={lr}, it must not be negative")
        self.lr = lr
        self.state: list[dict] = [{} for _ in self.parameters]

    def update(self, parameter, gradient, state: dict, scale: float) -> None:
        """Change the 1-D array `parameter` in place by the 1-D array `gradient` times `scale`.

        `state` starts empty. The update keeps in it 1-D arrays as long as `parameter`, and ints.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def step(self, scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, by the gradient times `scale`; the gradients stay as they are.

        Of a parameter, only what is `updated_here` is, and only for that a state is kept.
        """
        for parameter, state in zip(self.parameters, self.state, strict=True):
            if parameter.grad is not None:
                k, here = parameter.kernels, parameter.updated_here
                p, gradient = k.reshape(parameter.data, (-1,)), k.reshape(parameter.grad.data, (-1,))
                if here is None:
                    self.update(p, gradient, state, scale)
                elif p[here].size:
                    self.update(p[here], gradient[here], state, scale)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict:
        """{"lr": lr, "state": {parameter name, or index if it has none: {"momentum": array, ...}}}, flat arrays.

        They belong to what is `updated_here` of each parameter.
        """
        state = {name: dict(state) for name, state in zip(self._names(), self.state, strict=True)}
        return {"lr": self.lr, "state": state}

    def load_state_dict(self, saved: dict) -> None:
        """Copy what `state_dict` gave; ValueError if a parameter is missing or has another size."""
        names = self._names()
        missing = [name for name in names if name not in saved["state"]]
        if missing:
            raise ValueError(f"the optimizer state has no entry for {', '.join(missing)}")
        states = [saved["state"][name] for name in names]
        for name, parameter, state in zip(names, self.parameters, states, strict=True):
            size = len(range(parameter.numel())[parameter.updated_here or slice(None)])
            for key, value in state.items():
                if not isinstance(value, int) and value.size != size:
                    raise ValueError(f"{key} of {name} has {value.size} elements, the parameter {size}")
        self.lr = saved["lr"]
        self.state = [{key: _copy(value) for key, value in state.items()} for state in states]

    def _names(self):
        return [parameter.name or str(i) for i, parameter in enumerate(self.parameters)]


def zeros_like(x):
    """A new array of zeros, of the shape, dtype and device of the array `x`."""
    return Tensor(x).kernels.full(x.shape, 0, x.dtype)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _copy(value):
    return value if isinstance(value, int | np.integer) else Tensor(value).kernels.copy(value)
