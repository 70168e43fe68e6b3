"""Stochastic gradient descent."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, require, zeros_for


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = gradient + weight_decay * p
        v = momentum * v + (1 - dampening) * g          (v = g in the first step)
        p = p - lr * v                                  (nesterov: p - lr * (g + momentum * v))

    Sutskever et al. 2013, in PyTorch's form: the learning rate stays outside of v. maximize: up the gradient, here and
    in all other optimizers.
    """

    not_negative = ("momentum",)

    def __init__(
        self, params: Params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def check(self, options):
        super().check(options)
        works = options["momentum"] > 0 and options["dampening"] == 0
        require(not options["nesterov"] or works, "nesterov needs a momentum and no dampening")

    def update(self, parameter, gradient, state, options, scale):
        momentum, dampening = options["momentum"], options["dampening"]
        if momentum and "momentum" not in state:
            state["momentum"], dampening = zeros_for(parameter), 0.0
        for_array(parameter).sgd_update(
            parameter, gradient, state["momentum"] if momentum else None, options["lr"], momentum, dampening,
            options["weight_decay"], options["nesterov"], scale,
        )  # fmt: skip
