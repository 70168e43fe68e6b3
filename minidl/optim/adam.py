"""Adam and AdamW."""

from collections.abc import Iterable

from minidl.nn.module import Parameter
from minidl.optim.optimizer import Optimizer, require, zeros_like
from minidl.tensor import Tensor


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

    g = gradient + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g^2
    p = p - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
    """

    state_size_per_parameter = 2
    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr)
        require(all(0 <= beta < 1 for beta in betas), f"betas={betas}, both must be at least 0 and below 1")
        require(eps >= 0, f"eps={eps}, it must not be negative")
        require(weight_decay >= 0, f"weight_decay={weight_decay}, it must not be negative")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, parameter, gradient, state, scale):
        if not state:
            state.update(step=0, mean=zeros_like(parameter), square=zeros_like(parameter))
        state["step"] += 1
        Tensor(parameter).kernels.adam_update(
            parameter, gradient, state["mean"], state["square"], state["step"], self.lr, *self.betas, self.eps,
            self.weight_decay, self.decoupled, scale,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, p = p - lr * weight_decay * p first (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay)
