"""What an optimizer does to one element of a parameter: compiled for the CPU and for a GPU alike.

g: the gradient, p: the parameter; what follows is the state, then the numbers of the step, all of one type of float.
Each gives the new p and state. `one` is 1 of that type: a plain 1 would make float64 of float32.
"""

import math


def sgd(g, p, lr, weight_decay, scale):
    return p - lr * (g * scale + weight_decay * p)


def momentum_sgd(g, p, v, lr, momentum, kept, weight_decay, nesterov, scale):
    """kept: 1 - dampening."""
    g = g * scale + weight_decay * p
    v = momentum * v + kept * g
    return p - lr * (g + momentum * v if nesterov else v), v


def adam(g, p, m, v, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale, one):
    g = g * scale + weight_decay * p
    m = beta1 * m + (one - beta1) * g
    v = beta2 * v + (one - beta2) * g * g
    return shrink * p - (of_mean * m + of_gradient * g) / (root * math.sqrt(v) + eps), m, v


def amsgrad(g, p, m, v, largest, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale, one):
    g = g * scale + weight_decay * p
    m = beta1 * m + (one - beta1) * g
    v = beta2 * v + (one - beta2) * g * g
    largest = largest if largest > v or largest != largest else v  # NaN if one is
    return shrink * p - (of_mean * m + of_gradient * g) / (root * math.sqrt(largest) + eps), m, v, largest


def lamb_moments(g, p, m, v, beta1, beta2, eps, of_mean, root, weight_decay, scale, one):
    """-> the square of u, m, v."""
    g = g * scale
    m = beta1 * m + (one - beta1) * g
    v = beta2 * v + (one - beta2) * g * g
    u = of_mean * m / (root * math.sqrt(v) + eps) + weight_decay * p
    return u * u, m, v


def adagrad(g, p, total, lr, eps, weight_decay, scale):
    g = g * scale + weight_decay * p
    total = total + g * g
    return p - lr * g / (math.sqrt(total) + eps), total


def adadelta(g, p, v, u, lr, rho, eps, weight_decay, scale, one):
    g = g * scale + weight_decay * p
    v = rho * v + (one - rho) * g * g
    step = math.sqrt((u + eps) / (v + eps)) * g
    return p - lr * step, v, rho * u + (one - rho) * step * step


def rmsprop(g, p, v, lr, alpha, eps, weight_decay, scale, one):
    g = g * scale + weight_decay * p
    v = alpha * v + (one - alpha) * g * g
    return p - lr * g / (math.sqrt(v) + eps), v


def rmsprop_centered(g, p, v, m, lr, alpha, eps, weight_decay, scale, one):
    g = g * scale + weight_decay * p
    v = alpha * v + (one - alpha) * g * g
    m = alpha * m + (one - alpha) * g
    return p - lr * g / (math.sqrt(v - m * m) + eps), v, m


def rmsprop_momentum(g, p, v, velocity, lr, alpha, eps, weight_decay, scale, one, momentum):
    g = g * scale + weight_decay * p
    v = alpha * v + (one - alpha) * g * g
    velocity = momentum * velocity + g / (math.sqrt(v) + eps)
    return p - lr * velocity, v, velocity


def rmsprop_centered_momentum(g, p, v, m, velocity, lr, alpha, eps, weight_decay, scale, one, momentum):
    g = g * scale + weight_decay * p
    v = alpha * v + (one - alpha) * g * g
    m = alpha * m + (one - alpha) * g
    velocity = momentum * velocity + g / (math.sqrt(v - m * m) + eps)
    return p - lr * velocity, v, m, velocity


def lion(g, p, m, lr, beta1, beta2, weight_decay, scale, one):
    g = g * scale
    zero, along = one - one, beta1 * m + (one - beta1) * g
    sign = one if along > zero else -one if along < zero else along
    return p - lr * (sign + weight_decay * p), beta2 * m + (one - beta2) * g
