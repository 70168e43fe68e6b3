"""What an optimizer does to the elements of a parameter: run by NumPy on arrays, compiled for the CPU and for a GPU."""

from collections.abc import Callable


def rules(one, sqrt: Callable, maximum: Callable, sign: Callable) -> dict[str, Callable]:
    """name -> rule(g, p, *state, *numbers), which gives the new p and the new state.

    g: the gradient, scaled and with weight decay, p: the parameter; the numbers are those of the step. `one` is 1 of
    their type, as a plain 1 would make float64 of float32; the functions are of numbers, or of arrays and new ones.
    """

    def sgd(g, p, lr):
        return (p - lr * g,)

    def momentum_sgd(g, p, v, lr, momentum, kept, nesterov):
        """kept: 1 - dampening."""
        v = momentum * v + kept * g
        return p - lr * (g + momentum * v if nesterov else v), v

    def adam(g, p, m, v, beta1, beta2, eps, of_mean, of_gradient, root, shrink):
        m = beta1 * m + (one - beta1) * g
        v = beta2 * v + (one - beta2) * g * g
        return shrink * p - (of_mean * m + of_gradient * g) / (root * sqrt(v) + eps), m, v

    def amsgrad(g, p, m, v, largest, beta1, beta2, eps, of_mean, of_gradient, root, shrink):
        m = beta1 * m + (one - beta1) * g
        v = beta2 * v + (one - beta2) * g * g
        largest = maximum(largest, v)
        return shrink * p - (of_mean * m + of_gradient * g) / (root * sqrt(largest) + eps), m, v, largest

    def lamb_moments(g, p, m, v, beta1, beta2, eps, of_mean, root, weight_decay):
        """The square of u comes in place of the new p."""
        m = beta1 * m + (one - beta1) * g
        v = beta2 * v + (one - beta2) * g * g
        u = of_mean * m / (root * sqrt(v) + eps) + weight_decay * p
        return u * u, m, v

    def adagrad(g, p, total, lr, eps):
        total = total + g * g
        return p - lr * g / (sqrt(total) + eps), total

    def adadelta(g, p, v, u, lr, rho, eps):
        v = rho * v + (one - rho) * g * g
        step = sqrt((u + eps) / (v + eps)) * g
        return p - lr * step, v, rho * u + (one - rho) * step * step

    def rmsprop(g, p, v, lr, alpha, eps):
        v = alpha * v + (one - alpha) * g * g
        return p - lr * g / (sqrt(v) + eps), v

    def rmsprop_centered(g, p, v, m, lr, alpha, eps):
        v = alpha * v + (one - alpha) * g * g
        m = alpha * m + (one - alpha) * g
        return p - lr * g / (sqrt(v - m * m) + eps), v, m

    def rmsprop_momentum(g, p, v, velocity, lr, alpha, eps, momentum):
        v = alpha * v + (one - alpha) * g * g
        velocity = momentum * velocity + g / (sqrt(v) + eps)
        return p - lr * velocity, v, velocity

    def rmsprop_centered_momentum(g, p, v, m, velocity, lr, alpha, eps, momentum):
        v = alpha * v + (one - alpha) * g * g
        m = alpha * m + (one - alpha) * g
        velocity = momentum * velocity + g / (sqrt(v - m * m) + eps)
        return p - lr * velocity, v, m, velocity

    def lion(g, p, m, lr, beta1, beta2, weight_decay):
        step = sign(beta1 * m + (one - beta1) * g) + weight_decay * p
        return p - lr * step, beta2 * m + (one - beta2) * g

    made = (
        sgd, momentum_sgd, adam, amsgrad, lamb_moments, adagrad, adadelta, rmsprop, rmsprop_centered, rmsprop_momentum,
        rmsprop_centered_momentum, lion,
    )  # fmt: skip
    return {rule.__name__: rule for rule in made}
