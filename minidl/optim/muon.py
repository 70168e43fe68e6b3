"""Muon, which steps along matrices whose singular values are all about 1."""

from __future__ import annotations

import math

from minidl.kernels import for_array
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import Optimizer, Params, require, zeros_for

RATES = ("original", "match_rms_adamw")
BETAS, EPS = (0.9, 0.95), 1e-10  # of the steps of what is no matrix: those of Jordan's code


class Muon(Optimizer):
    """Momentum, orthogonalised by Newton-Schulz steps (Jordan et al. 2024, "Muon: An optimizer for hidden layers").

    m = momentum * m + (1 - momentum) * gradient
    u = momentum * m + (1 - momentum) * gradient if nesterov else m
    X = u / max(|u|, eps), then ns_steps times X = a X + (b X X^T + c (X X^T)^2) X
    p = p - lr * weight_decay * p - lr * factor * X

    of each matrix, and of those that a parameter of more dimensions is a stack of. ns_coefficients: a, b, c.
    adjust_lr_fn: "original", or None, makes the factor sqrt(max(1, rows / columns)), "match_rms_adamw" 0.2 times the
    root of the larger of both, with which the rates of AdamW serve (Liu et al. 2025, "Muon is Scalable for LLM
    Training", section 2.2).

    A parameter that is no matrix, such as a bias, gets the step of AdamW, with the group's lr and weight_decay. So does
    all of a group that says matrices=False: that is meant for embeddings and the last layer. PyTorch refuses what is no
    matrix, and orthogonalises in bfloat16, which is here done in the parameter's dtype.

    It takes whole matrices: ValueError where ranks hold parts of one. A stack may be cut between its matrices.
    """

    whole = True
    not_negative = ("eps",)
    below_one = ("momentum",)

    def __init__(
        self, params: Params, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None, *, matrices: bool = True,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(params, locals())

    def check(self, options):
        super().check(options)
        coefficients, steps, rate = (options[name] for name in ("ns_coefficients", "ns_steps", "adjust_lr_fn"))
        require(len(coefficients) == 3, f"ns_coefficients={coefficients} are not three")
        require(0 <= steps < 100, f"ns_steps={steps}, it must be at least 0 and below 100")
        require(rate is None or rate in RATES, f"adjust_lr_fn={rate!r}, choose one of {', '.join(RATES)}, or None")

    def updates_part(self, parameter: Parameter) -> bool:
        return all(split.dim < len(parameter.cut.whole) - 2 for split in parameter.cut.splits)

    def update(self, parameter, gradient, state, options, scale):
        k, lr, decay = for_array(parameter), options["lr"], options["weight_decay"]
        flat, flat_gradient = k.reshape(parameter, (-1,)), k.reshape(gradient, (-1,))
        if len(parameter.shape) < 2 or not options["matrices"]:
            return _adamw(flat, flat_gradient, state, lr, decay, scale)
        if not state:
            state["momentum"] = zeros_for(flat)
        kept, moved = options["momentum"], state["momentum"]
        new = k.multiply(flat_gradient, (1 - kept) * scale)
        k.assign(moved, k.add(k.multiply(moved, kept), new))
        along = k.add(k.multiply(moved, kept), new) if options["nesterov"] else moved
        step = newton_schulz(
            k, k.reshape(along, parameter.shape), options["ns_coefficients"], options["ns_steps"], options["eps"]
        )
        rows, columns = parameter.shape[-2:]
        factor = math.sqrt(max(1, rows / columns))
        if options["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        k.sgd_update(flat, k.reshape(step, (-1,)), None, 1.0, 0.0, 0.0, lr * decay, False, lr * factor)


def newton_schulz(kernels, x, coefficients: tuple[float, float, float], steps: int, eps: float):
    """The array x (..., rows, columns) with all singular values of its matrices near 1, after so many steps."""
    k, (a, b, c) = kernels, coefficients
    upright = x.shape[-2] > x.shape[-1]
    if upright:
        x = k.swap_last(x)
    norm = k.sqrt(k.sum(k.multiply(x, x), (len(x.shape) - 2, len(x.shape) - 1), True))
    x = k.divide(x, k.maximum(norm, eps))  # no singular value is above 1
    for _ in range(steps):
        gram = k.matmul(x, k.swap_last(x))
        polynomial = k.add(k.multiply(gram, b), k.multiply(k.matmul(gram, gram), c))
        x = k.add(k.multiply(x, a), k.matmul(polynomial, x))
    return k.swap_last(x) if upright else x


def _adamw(parameter, gradient, state, lr, decay, scale):
    if not state:
        state.update(step=0, mean=zeros_for(parameter), square=zeros_for(parameter))
    state["step"] += 1
    beta1, beta2 = BETAS
    for_array(parameter).adam_update(
        parameter, gradient, state["mean"], state["square"], None, beta1, beta2, EPS,
        lr / (1 - beta1 ** state["step"]), 0.0, (1 - beta2 ** state["step"]) ** -0.5, 0.0, 1 - lr * decay, scale,
    )  # fmt: skip
