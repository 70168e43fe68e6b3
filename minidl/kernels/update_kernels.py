"""The updates of optimizers, once for every device: what a kernel takes, and which rule it applies to what.

All work in place on the 1-D arrays of a parameter and of the optimizer's state. The rule gets the gradient times
`scale`, plus, unless a kernel says otherwise, `weight_decay` times the parameter.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple


class Update(NamedTuple):
    """What an update is.

    rule: of update_rules.py. state: its arrays. numbers: of its step. scale: of the gradient. decay: how much of the
    parameter is added to that. flops: of an element. sums: the rule's first results are summed up, and that is what
    the kernel gives; the parameter stays.
    """

    rule: str
    state: tuple
    numbers: tuple
    scale: float
    decay: float
    flops: int
    sums: bool = False


def sgd_update(parameter, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, scale):
    """One step of `optim.SGD`, in place; `velocity` is None without momentum."""
    flops = 3 + 2 * bool(weight_decay) + 2 * (velocity is not None) + 2 * nesterov
    if velocity is None:
        return Update("sgd", (), (lr,), scale, weight_decay, flops)
    return Update("momentum_sgd", (velocity,), (lr, momentum, 1 - dampening, nesterov), scale, weight_decay, flops)


def adam_update(
    parameter, gradient, mean, square, largest, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink,
    scale,
):  # fmt: skip
    """One step of `optim.Adam` and its kin, which differ in the numbers that they give, in place.

    p = shrink * p - (of_mean * m + of_gradient * g) / (root * sqrt(v) + eps) with the new moments m and v, or instead
    of v with the `largest` so far, where that is not None.
    """
    flops = 14 + 2 * bool(weight_decay) + (shrink != 1) + 2 * bool(of_gradient) + (largest is not None)
    numbers = (beta1, beta2, eps, of_mean, of_gradient, root, shrink)
    if largest is None:
        return Update("adam", (mean, square), numbers, scale, weight_decay, flops)
    return Update("amsgrad", (mean, square, largest), numbers, scale, weight_decay, flops)


def lamb_moments_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale
):  # fmt: skip
    """The first half of a step of `optim.LAMB`: moves the moments on in place, and gives the squared norm of

    u = of_mean * m / (root * sqrt(v) + eps) + weight_decay * p, a float. The gradient is without weight decay.
    """
    numbers = (beta1, beta2, eps, of_mean, root, weight_decay)
    return Update("lamb_moments", (mean, square), numbers, scale, 0.0, 17, sums=True)


def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    """One step of `optim.Adagrad`, in place; lr is that of this step."""
    return Update("adagrad", (total,), (lr, eps), scale, weight_decay, 8 + 2 * bool(weight_decay))


def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    """One step of `optim.Adadelta`, in place."""
    flops = 16 + 2 * bool(weight_decay)
    return Update("adadelta", (square, step_square), (lr, rho, eps), scale, weight_decay, flops)


def rmsprop_update(parameter, gradient, square, mean, velocity, lr, alpha, eps, momentum, weight_decay, scale):
    """One step of `optim.RMSprop`, in place; `mean` is None unless it is centered, `velocity` without momentum."""
    flops = 10 + 2 * bool(weight_decay) + 5 * (mean is not None) + 2 * (velocity is not None)
    rule, state, numbers = "rmsprop", [square], [lr, alpha, eps]
    if mean is not None:
        rule, state = rule + "_centered", [*state, mean]
    if velocity is not None:
        rule, state, numbers = rule + "_momentum", [*state, velocity], [*numbers, momentum]
    return Update(rule, tuple(state), tuple(numbers), scale, weight_decay, flops)


def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    """One step of `optim.Lion`, in place; the gradient is without weight decay."""
    flops = 10 + 2 * bool(weight_decay)
    return Update("lion", (mean,), (lr, beta1, beta2, weight_decay), scale, 0.0, flops)


UPDATES = (
    sgd_update, adam_update, lamb_moments_update, adagrad_update, adadelta_update, rmsprop_update, lion_update,
)  # fmt: skip
NAMES = [update.__name__ for update in UPDATES]


def kernels(apply: Callable) -> list[Callable]:
    """The kernels of a device, in the order of NAMES: apply(name, update, parameter, gradient) does an Update there."""
    return [_kernel(update, apply) for update in UPDATES]


def _kernel(update: Callable[..., Update], apply: Callable) -> Callable:
    @wraps(update)
    def kernel(parameter, gradient, *arguments):
        return apply(update.__name__, update(parameter, gradient, *arguments), parameter, gradient)

    return kernel
