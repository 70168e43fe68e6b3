"""Stochastic gradient descent."""

from collections.abc import Iterable

from minidl.nn.module import Parameter
from minidl.optim.optimizer import Optimizer, require, zeros_like
from minidl.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = gradient + weight_decay * p
        v = momentum * v + (1 - dampening) * g          (v = g in the first step)
        p = p - lr * v                                  (nesterov: p - lr * (g + momentum * v))

    Sutskever et al. 2013, in PyTorch's form: the learning rate stays outside of v.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(parameters, lr)
        require(momentum >= 0, f"momentum={momentum}, it must not be negative")
        require(weight_decay >= 0, f"weight_decay={weight_decay}, it must not be negative")
        require(not nesterov or (momentum > 0 and dampening == 0), "nesterov needs a momentum and no dampening")
        self.momentum, self.dampening = momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, nesterov

    @property
    def state_size_per_parameter(self) -> int:
        return 1 if self.momentum else 0

    def update(self, parameter, gradient, state, scale):
        dampening = self.dampening
        if self.momentum and "momentum" not in state:
            state["momentum"], dampening = zeros_like(parameter), 0.0
        Tensor(parameter).kernels.sgd_update(
            parameter, gradient, state.get("momentum"), self.lr, self.momentum, dampening,
            self.weight_decay, self.nesterov, scale,
        )  # fmt: skip
