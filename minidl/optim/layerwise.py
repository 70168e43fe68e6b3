"""LARS and LAMB, for large batches: the step of each parameter is in proportion to the parameter's own norm.

The norms are those of the whole parameter. Where ranks hold parts of it, the squares are summed over them first.
"""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, zeros_for


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017, algorithm 1).

    trust = trust_coefficient * |p| / (|gradient| + weight_decay * |p|)
    v = momentum * v + lr * trust * (gradient + weight_decay * p)
    p = p - v

    |.| is the norm of the whole parameter. Where either norm is 0 (a bias that starts at 0), trust is 1.
    """

    not_negative = ("momentum", "trust_coefficient")
    norms = 2

    def __init__(
        self, params: Params, lr: float = 1e-1, momentum: float = 0.9, weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def squares(self, parameter, gradient, state, options, scale):
        k = for_array(parameter)
        return k.squared_norm(parameter), k.squared_norm(gradient) * scale**2

    def update(self, parameter, gradient, state, options, scale, parameter_norm, gradient_norm):
        momentum, decay = options["momentum"], options["weight_decay"]
        if momentum and not state:
            state["momentum"] = zeros_for(parameter)
        trust = 1.0
        if parameter_norm and gradient_norm:
            trust = options["trust_coefficient"] * parameter_norm / (gradient_norm + decay * parameter_norm)
        rate = options["lr"] * trust
        # The rate is inside of v, so it scales what is added to v instead of the step.
        for_array(parameter).sgd_update(
            parameter, gradient, state["momentum"] if momentum else None, 1.0, momentum, 0.0, rate * decay, False,
            rate * scale,
        )  # fmt: skip


class LAMB(Optimizer):
    """Layer-wise adaptive moments for batch training (You et al. 2020, algorithm 2, with phi the identity).

    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient^2
    u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
    p = p - lr * |p| / |u| * u

    |.| is the norm of the whole parameter. Where either norm is 0 (a bias that starts at 0), their ratio is 1.
    """

    not_negative = ("eps",)
    below_one = ("betas",)
    norms = 2

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 0.0, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def squares(self, parameter, gradient, state, options, scale):
        """Of the parameter and of u; the moments move on here, as u needs the new ones."""
        if not state:
            state.update(step=0, mean=zeros_for(parameter), square=zeros_for(parameter))
        state["step"] += 1
        k = for_array(parameter)
        of_mean, root = _corrections(options, state)
        along = k.lamb_moments_update(
            parameter, gradient, state["mean"], state["square"], *options["betas"], options["eps"], of_mean, root,
            options["weight_decay"], scale,
        )  # fmt: skip
        return k.squared_norm(parameter), along

    def update(self, parameter, gradient, state, options, scale, parameter_norm, step_norm):
        rate = options["lr"] * (parameter_norm / step_norm if parameter_norm and step_norm else 1.0)
        of_mean, root = _corrections(options, state)
        # AdamW's step with moments that stand still: their betas are 1.
        for_array(parameter).adam_update(
            parameter, gradient, state["mean"], state["square"], None, 1.0, 1.0, options["eps"], rate * of_mean, 0.0,
            root, 0.0, 1 - rate * options["weight_decay"], scale,
        )  # fmt: skip


def _corrections(options: dict, state: dict) -> tuple[float, float]:
    """What the biased mean is multiplied by, and the root of the biased mean square."""
    beta1, beta2 = options["betas"]
    return 1 / (1 - beta1 ** state["step"]), (1 - beta2 ** state["step"]) ** -0.5
