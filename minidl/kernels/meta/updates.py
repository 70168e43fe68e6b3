"""Optimizer updates: costs."""

from minidl.kernels.meta.record import in_place

__all__ = ["adam_update", "sgd_update"]


def sgd_update(parameter, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, scale):
    state = () if velocity is None else (velocity,)
    flops = 3 + 2 * bool(weight_decay) + 2 * len(state) + 2 * nesterov
    in_place("sgd_update", parameter, (parameter, gradient, *state), flops * parameter.size, state)


def adam_update(parameter, gradient, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled, scale):
    state = mean, square
    flops = 14 + 2 * bool(weight_decay)
    in_place("adam_update", parameter, (parameter, gradient, *state), flops * parameter.size, state)
