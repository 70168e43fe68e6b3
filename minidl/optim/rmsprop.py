"""RMSprop."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, zeros_for


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6e of Neural Networks for Machine Learning), in PyTorch's form.

        g = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * g^2
        d = g / (sqrt(v) + eps)
        p = p - lr * d                                  (momentum: b = momentum * b + d, p - lr * b)

    centered: with m = alpha * m + (1 - alpha) * g, the variance v - m^2 instead of v in d (Graves 2013, equation 38).
    """

    not_negative = ("eps", "momentum")
    below_one = ("alpha",)

    def __init__(
        self, params: Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
        momentum: float = 0.0, centered: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        wanted = {"square": True, "mean": options["centered"], "momentum": options["momentum"]}
        for key in (key for key, is_wanted in wanted.items() if is_wanted and key not in state):
            state[key] = zeros_for(parameter)
        square, mean, velocity = (state[key] if is_wanted else None for key, is_wanted in wanted.items())
        for_array(parameter).rmsprop_update(
            parameter, gradient, square, mean, velocity, options["lr"], options["alpha"], options["eps"],
            options["momentum"], options["weight_decay"], scale,
        )  # fmt: skip
