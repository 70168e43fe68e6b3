"""Adam and its kin: steps along a mean of gradients, over the root of a mean of their squares."""

from minidl.kernels import for_array
from minidl.optim.optimizer import Optimizer, Params, zeros_for


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

        g = gradient + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    amsgrad: the largest v so far instead of v in the last line (Reddi et al. 2018, algorithm 2).
    """

    not_negative = ("eps",)
    below_one = ("betas",)
    decoupled = False

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, amsgrad: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        if not state:
            state.update(step=0, mean=zeros_for(parameter), square=zeros_for(parameter))
            if options["amsgrad"]:
                state["largest"] = zeros_for(parameter)
        state["step"] += 1
        (beta1, beta2), lr, decay = options["betas"], options["lr"], options["weight_decay"]
        for_array(parameter).adam_update(
            parameter, gradient, state["mean"], state["square"], state.get("largest"), beta1, beta2, options["eps"],
            lr / (1 - beta1 ** state["step"]), 0.0, (1 - beta2 ** state["step"]) ** -0.5,
            0.0 if self.decoupled else decay, 1 - lr * decay if self.decoupled else 1.0, scale,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay, p = p - lr * weight_decay * p first (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016), in PyTorch's form.

    g, m, v as in Adam
    mu[t] = beta1 * (1 - 0.96^(t * momentum_decay) / 2)
    p = p - lr * (mu[t+1] * m / (1 - mu[1] … mu[t+1]) + (1 - mu[t]) * g / (1 - mu[1] … mu[t]))
               / (sqrt(v / (1 - beta2^t)) + eps)

    decoupled_weight_decay: as in AdamW.
    """

    not_negative = ("eps", "momentum_decay")
    below_one = ("betas",)

    def __init__(
        self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def update(self, parameter, gradient, state, options, scale):
        if not state:
            state.update(step=0, product=1.0, mean=zeros_for(parameter), square=zeros_for(parameter))
        state["step"] += 1
        (beta1, beta2), lr, decay = options["betas"], options["lr"], options["weight_decay"]
        now, then = (
            beta1 * (1 - 0.5 * 0.96 ** (t * options["momentum_decay"])) for t in (state["step"], state["step"] + 1)
        )
        state["product"] *= now
        decoupled = options["decoupled_weight_decay"]
        for_array(parameter).adam_update(
            parameter, gradient, state["mean"], state["square"], None, beta1, beta2, options["eps"],
            lr * then / (1 - state["product"] * then), lr * (1 - now) / (1 - state["product"]),
            (1 - beta2 ** state["step"]) ** -0.5,
            0.0 if decoupled else decay, 1 - lr * decay if decoupled else 1.0, scale,
        )  # fmt: skip
