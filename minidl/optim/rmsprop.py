"""RMSprop."""

from collections.abc import Iterable

from minidl.kernels import for_array
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import Optimizer, below_one, not_negative, zeros_for


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012, lecture 6e of Neural Networks for Machine Learning), in PyTorch's form.

        g = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * g^2
        d = g / (sqrt(v) + eps)
        p = p - lr * d                                  (momentum: b = momentum * b + d, p - lr * b)

    centered: with m = alpha * m + (1 - alpha) * g, the variance v - m^2 instead of v in d (Graves 2013, equation 38).
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            dict(
                lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
                maximize=maximize,
            ),
        )  # fmt: skip

    def check(self, options):
        super().check(options)
        below_one(options, "alpha")
        not_negative(options, "eps", "momentum")

    def update(self, parameter, gradient, state, options, scale):
        wanted = {"square": True, "mean": options["centered"], "momentum": options["momentum"]}
        for key in (key for key, is_wanted in wanted.items() if is_wanted and key not in state):
            state[key] = zeros_for(parameter)
        square, mean, velocity = (state[key] if is_wanted else None for key, is_wanted in wanted.items())
        for_array(parameter).rmsprop_update(
            parameter, gradient, square, mean, velocity, options["lr"], options["alpha"], options["eps"],
            options["momentum"], options["weight_decay"], scale,
        )  # fmt: skip
