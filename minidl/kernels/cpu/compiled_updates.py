"""Optimizer updates compiled by Numba, for float32: one pass over memory where NumPy needs ten.

updates.py has their NumPy twins; arrays are 1-D and changed in place, numbers are float32.
"""

import numpy as np

from minidl.kernels.cpu.compiled import ONE
from minidl.kernels.cpu.compiling import FLAGS, njit


@njit(fastmath=FLAGS)
def sgd_update(parameter, gradient, lr, weight_decay, scale):
    for i in range(len(parameter)):
        parameter[i] -= lr * (gradient[i] * scale + weight_decay * parameter[i])


@njit(fastmath=FLAGS)
def momentum_update(parameter, gradient, velocity, lr, momentum, kept, weight_decay, nesterov, scale):
    """kept: 1 - dampening."""
    for i in range(len(parameter)):
        g = gradient[i] * scale + weight_decay * parameter[i]
        v = momentum * velocity[i] + kept * g
        velocity[i] = v
        parameter[i] -= lr * (g + momentum * v if nesterov else v)


@njit(fastmath=FLAGS)
def adam_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale
):
    for i in range(len(parameter)):
        g = gradient[i] * scale + weight_decay * parameter[i]
        m = beta1 * mean[i] + (ONE - beta1) * g
        v = beta2 * square[i] + (ONE - beta2) * g * g
        mean[i], square[i] = m, v
        parameter[i] = shrink * parameter[i] - (of_mean * m + of_gradient * g) / (root * np.sqrt(v) + eps)


@njit(fastmath=FLAGS)
def lamb_moments_update(parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale):
    """Returns the squared norm of u, summed in float64."""
    total = 0.0
    for i in range(len(parameter)):
        g = gradient[i] * scale
        m = beta1 * mean[i] + (ONE - beta1) * g
        v = beta2 * square[i] + (ONE - beta2) * g * g
        mean[i], square[i] = m, v
        u = of_mean * m / (root * np.sqrt(v) + eps) + weight_decay * parameter[i]
        total += np.float64(u * u)
    return total


@njit(fastmath=FLAGS)
def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    for i in range(len(parameter)):
        g = gradient[i] * scale + weight_decay * parameter[i]
        total[i] += g * g
        parameter[i] -= lr * g / (np.sqrt(total[i]) + eps)


@njit(fastmath=FLAGS)
def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    for i in range(len(parameter)):
        g = gradient[i] * scale + weight_decay * parameter[i]
        v = rho * square[i] + (ONE - rho) * g * g
        d = np.sqrt((step_square[i] + eps) / (v + eps)) * g
        square[i] = v
        step_square[i] = rho * step_square[i] + (ONE - rho) * d * d
        parameter[i] -= lr * d


@njit(fastmath=FLAGS)
def rmsprop_update(parameter, gradient, square, lr, alpha, eps, weight_decay, scale):
    for i in range(len(parameter)):
        g = gradient[i] * scale + weight_decay * parameter[i]
        v = alpha * square[i] + (ONE - alpha) * g * g
        square[i] = v
        parameter[i] -= lr * g / (np.sqrt(v) + eps)


@njit(fastmath=FLAGS)
def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    for i in range(len(parameter)):
        g, m = gradient[i] * scale, mean[i]
        parameter[i] -= lr * (np.sign(beta1 * m + (ONE - beta1) * g) + weight_decay * parameter[i])
        mean[i] = beta2 * m + (ONE - beta2) * g
