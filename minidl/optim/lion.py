"""Lion."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, zeros_for


class Lion(Optimizer):
    """Lion, evolved sign momentum (Chen et al. 2023, algorithm 2): every element moves by lr, whatever the gradient.

    g = gradient
    p = p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p)
    m = beta2 * m + (1 - beta2) * g

    Learning rates are 3 to 10 times smaller than AdamW's, and weight decays as much larger (section 5).
    """

    below_one = ("betas",)

    def __init__(
        self, params: Params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        if not state:
            state["mean"] = zeros_for(parameter)
        for_array(parameter).lion_update(
            parameter, gradient, state["mean"], options["lr"], *options["betas"], options["weight_decay"], scale
        )
