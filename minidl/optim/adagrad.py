"""Adagrad."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011, section 1.1, with the diagonal of G), in PyTorch's form.

    g = gradient + weight_decay * p
    G = G + g^2                                         (initial_accumulator_value at first)
    p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(G) + eps)
    """

    not_negative = ("lr_decay", "initial_accumulator_value", "eps")

    def __init__(
        self, params: Params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        k = for_array(parameter)
        if not state:
            total = k.full(parameter.shape, options["initial_accumulator_value"], parameter.dtype)
            state.update(step=0, total=total)
        lr = options["lr"] / (1 + state["step"] * options["lr_decay"])
        state["step"] += 1
        k.adagrad_update(parameter, gradient, state["total"], lr, options["eps"], options["weight_decay"], scale)
