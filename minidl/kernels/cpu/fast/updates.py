"""Optimizer updates compiled by Numba, for float32: one pass over memory where NumPy needs ten.

updates.py has their NumPy twins, update_rules.py what is done to an element. Arrays are 1-D and changed in place,
numbers are float32.
"""

import numpy as np

from minidl.kernels import update_rules
from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE


def _rule(function):
    return njit(fastmath=FLAGS, inline="always")(function)


sgd, momentum_sgd, adam, lamb_moments = map(
    _rule, (update_rules.sgd, update_rules.momentum_sgd, update_rules.adam, update_rules.lamb_moments)
)
adagrad, adadelta, rmsprop, lion = map(
    _rule, (update_rules.adagrad, update_rules.adadelta, update_rules.rmsprop, update_rules.lion)
)


@njit(fastmath=FLAGS)
def sgd_update(parameter, gradient, lr, weight_decay, scale):
    for i in range(len(parameter)):
        p = parameter[i]
        parameter[i] = sgd(gradient[i], p, lr, weight_decay, scale)


@njit(fastmath=FLAGS)
def momentum_update(parameter, gradient, velocity, lr, momentum, kept, weight_decay, nesterov, scale):
    for i in range(len(parameter)):
        parameter[i], velocity[i] = momentum_sgd(
            gradient[i], parameter[i], velocity[i], lr, momentum, kept, weight_decay, nesterov, scale
        )


@njit(fastmath=FLAGS)
def adam_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale
):
    for i in range(len(parameter)):
        parameter[i], mean[i], square[i] = adam(
            gradient[i], parameter[i], mean[i], square[i],
            beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale, ONE,
        )  # fmt: skip


@njit(fastmath=FLAGS)
def lamb_moments_update(parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale):
    """Returns the squared norm of u, summed in float64."""
    total = 0.0
    for i in range(len(parameter)):
        squared, mean[i], square[i] = lamb_moments(
            gradient[i], parameter[i], mean[i], square[i],
            beta1, beta2, eps, of_mean, root, weight_decay, scale, ONE,
        )  # fmt: skip
        total += np.float64(squared)
    return total


@njit(fastmath=FLAGS)
def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    for i in range(len(parameter)):
        parameter[i], total[i] = adagrad(gradient[i], parameter[i], total[i], lr, eps, weight_decay, scale)


@njit(fastmath=FLAGS)
def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    for i in range(len(parameter)):
        parameter[i], square[i], step_square[i] = adadelta(
            gradient[i], parameter[i], square[i], step_square[i], lr, rho, eps, weight_decay, scale, ONE
        )


@njit(fastmath=FLAGS)
def rmsprop_update(parameter, gradient, square, lr, alpha, eps, weight_decay, scale):
    for i in range(len(parameter)):
        parameter[i], square[i] = rmsprop(
            gradient[i], parameter[i], square[i], lr, alpha, eps, weight_decay, scale, ONE
        )


@njit(fastmath=FLAGS)
def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    for i in range(len(parameter)):
        parameter[i], mean[i] = lion(gradient[i], parameter[i], mean[i], lr, beta1, beta2, weight_decay, scale, ONE)
