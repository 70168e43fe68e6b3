"""Optimizer updates: costs."""

from minidl.kernels.meta.record import in_place, reduce_to_number

__all__ = [
    "adadelta_update", "adagrad_update", "adam_update", "lamb_moments_update", "lion_update", "rmsprop_update",
    "sgd_update",
]  # fmt: skip


def _update(name, parameter, gradient, state, flops):
    """`flops` for each element; state that is None does not exist."""
    state = tuple(x for x in state if x is not None)
    in_place(name, parameter, (parameter, gradient, *state), flops * parameter.size, state, kind="update")


def sgd_update(parameter, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, scale):
    flops = 3 + 2 * bool(weight_decay) + 2 * (velocity is not None) + 2 * nesterov
    _update("sgd_update", parameter, gradient, (velocity,), flops)


def adam_update(
    parameter, gradient, mean, square, largest, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink,
    scale,
):  # fmt: skip
    flops = 14 + 2 * bool(weight_decay) + (shrink != 1) + 2 * bool(of_gradient) + (largest is not None)
    _update("adam_update", parameter, gradient, (mean, square, largest), flops)


def lamb_moments_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale
):  # fmt: skip
    return reduce_to_number(
        "lamb_moments_update", parameter, 17 * parameter.size, (gradient,), (mean, square), kind="update"
    )


def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    _update("adagrad_update", parameter, gradient, (total,), 8 + 2 * bool(weight_decay))


def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    _update("adadelta_update", parameter, gradient, (square, step_square), 16 + 2 * bool(weight_decay))


def rmsprop_update(parameter, gradient, square, mean, velocity, lr, alpha, eps, momentum, weight_decay, scale):
    flops = 10 + 2 * bool(weight_decay) + 5 * (mean is not None) + 2 * (velocity is not None)
    _update("rmsprop_update", parameter, gradient, (square, mean, velocity), flops)


def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    _update("lion_update", parameter, gradient, (mean,), 10 + 2 * bool(weight_decay))
