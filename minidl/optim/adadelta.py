"""Adadelta."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, zeros_for


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012, algorithm 1): steps in the parameter's own unit.

    g = gradient + weight_decay * p
    v = rho * v + (1 - rho) * g^2
    d = sqrt(u + eps) / sqrt(v + eps) * g
    u = rho * u + (1 - rho) * d^2
    p = p - lr * d                                      (lr = 1 in the paper)
    """

    not_negative = ("eps",)
    below_one = ("rho",)

    def __init__(
        self, params: Params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0, *,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        if not state:
            state.update(square=zeros_for(parameter), step_square=zeros_for(parameter))
        for_array(parameter).adadelta_update(
            parameter, gradient, state["square"], state["step_square"], options["lr"], options["rho"], options["eps"],
            options["weight_decay"], scale,
        )  # fmt: skip
