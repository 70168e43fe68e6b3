"""Optimizer updates: one map of up to five 1-D arrays in place, over the rules of update_rules.py.

Each reads every array once and writes all but the gradient once, and computes next to nothing: its speed is that of
the memory. Neighbouring threads take neighbouring elements, and go on in strides of the whole grid, so that a warp's 32
accesses are one transaction.
"""

import functools

import numpy as np

from minidl.kernels import update_rules as rules
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import assign, contiguous, to_numpy
from minidl.kernels.cuda.block import tree
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = [
    "adadelta_update", "adagrad_update", "adam_update", "lamb_moments_update", "lion_update", "rmsprop_update",
    "sgd_update",
]  # fmt: skip


# The kernels, by how many arrays the rule has for its state


def update0(rule):
    @cuda.jit
    def update(gradient, parameter, size, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            parameter[i] = rule(gradient[i], parameter[i], *numbers)
            i = unsigned(i + step)

    return update


def update1(rule):
    @cuda.jit
    def update(gradient, parameter, a, size, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            parameter[i], a[i] = rule(gradient[i], parameter[i], a[i], *numbers)
            i = unsigned(i + step)

    return update


def update2(rule):
    @cuda.jit
    def update(gradient, parameter, a, b, size, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            parameter[i], a[i], b[i] = rule(gradient[i], parameter[i], a[i], b[i], *numbers)
            i = unsigned(i + step)

    return update


def update3(rule):
    @cuda.jit
    def update(gradient, parameter, a, b, c, size, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            parameter[i], a[i], b[i], c[i] = rule(gradient[i], parameter[i], a[i], b[i], c[i], *numbers)
            i = unsigned(i + step)

    return update


@functools.cache
def _kernel(name: str, states: int):
    return (update0, update1, update2, update3)[states](cuda.jit(device=True)(getattr(rules, name)))


@functools.cache
def _moments_kernel(F: type):
    """As `update2`, but the parameter stays as it is, and each block sums the squares that the rule gives for it.

    A thread adds up its own elements, a block its threads' sums as a tree; the few sums of blocks are for the host. So
    no sum is long, and float32 loses next to nothing.
    """
    rule, add_up = cuda.jit(device=True)(rules.lamb_moments), tree(scalar("add", F))
    threads, zero = THREADS, F(0)

    @cuda.jit
    def lamb_moments(gradient, parameter, mean, square, sums, size, numbers):
        shared = cuda.shared.array(threads, F)
        t, total = unsigned(cuda.threadIdx.x), zero
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            squared, mean[i], square[i] = rule(gradient[i], parameter[i], mean[i], square[i], *numbers)
            total += squared
            i = unsigned(i + step)
        total = add_up(shared, total, t, t, threads, 1)
        if t == 0:
            sums[cuda.blockIdx.x] = total

    return lamb_moments


# Launching them


def _update(name: str, gradient: CudaArray, parameter: CudaArray, *state: CudaArray, numbers: tuple) -> None:
    changed = (parameter, *state)
    rows = [contiguous(x) for x in changed]
    if parameter.size:
        launch(
            _kernel(name, len(state)), over(parameter.size), THREADS, contiguous(gradient), *rows, parameter.size,
            _as(parameter.dtype, numbers),
        )  # fmt: skip
    for x, row in zip(changed, rows, strict=True):
        if row is not x:
            assign(x, row)


def _as(dtype: np.dtype, numbers: tuple) -> tuple:
    return tuple(dtype.type(number) for number in numbers)


def sgd_update(parameter, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, scale):
    """One step of `optim.SGD`; `velocity` is None without momentum."""
    if velocity is None:
        _update("sgd", gradient, parameter, numbers=(lr, weight_decay, scale))
    else:
        numbers = (lr, momentum, 1 - dampening, weight_decay, nesterov, scale)
        _update("momentum_sgd", gradient, parameter, velocity, numbers=numbers)


def adam_update(
    parameter, gradient, mean, square, largest, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink,
    scale,
):  # fmt: skip
    """One step of `optim.Adam` and its kin, which differ in the numbers that they give.

    p = shrink * p - (of_mean * m + of_gradient * g) / (root * sqrt(v) + eps) with the new moments m and v, or instead
    of v with the `largest` so far, where that is not None.
    """
    numbers = (beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale, 1)
    if largest is None:
        _update("adam", gradient, parameter, mean, square, numbers=numbers)
    else:
        _update("amsgrad", gradient, parameter, mean, square, largest, numbers=numbers)


def lamb_moments_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale
):  # fmt: skip
    """The first half of a step of `optim.LAMB`: moves the moments on, and gives the squared norm of

    u = of_mean * m / (root * sqrt(v) + eps) + weight_decay * p. The gradient is without weight decay. Waits for it.
    """
    if not parameter.size:
        return 0.0
    rows = [contiguous(x) for x in (gradient, parameter, mean, square)]
    blocks = over(parameter.size)
    sums = CudaArray((blocks,), parameter.dtype)
    numbers = (beta1, beta2, eps, of_mean, root, weight_decay, scale, 1)
    launch(
        _moments_kernel(parameter.dtype.type),
        blocks,
        THREADS,
        *rows,
        sums,
        parameter.size,
        _as(parameter.dtype, numbers),
    )
    for x, row in zip((mean, square), rows[2:], strict=True):
        if row is not x:
            assign(x, row)
    return float(to_numpy(sums).sum(dtype=np.float64))


def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    """One step of `optim.Adagrad`; lr is that of this step."""
    _update("adagrad", gradient, parameter, total, numbers=(lr, eps, weight_decay, scale))


def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    """One step of `optim.Adadelta`."""
    _update("adadelta", gradient, parameter, square, step_square, numbers=(lr, rho, eps, weight_decay, scale, 1))


def rmsprop_update(parameter, gradient, square, mean, velocity, lr, alpha, eps, momentum, weight_decay, scale):
    """One step of `optim.RMSprop`; `mean` is None unless it is centered, `velocity` without momentum."""
    name, state, numbers = "rmsprop", [square], [lr, alpha, eps, weight_decay, scale, 1]
    if mean is not None:
        name, state = name + "_centered", [*state, mean]
    if velocity is not None:
        name, state, numbers = name + "_momentum", [*state, velocity], [*numbers, momentum]
    _update(name, gradient, parameter, *state, numbers=tuple(numbers))


def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    """One step of `optim.Lion`; the gradient is without weight decay."""
    _update("lion", gradient, parameter, mean, numbers=(lr, beta1, beta2, weight_decay, scale, 1))
