"""Optimizer updates: one map of up to five 1-D arrays in place, over the rules of update_rules.py.

Each reads every array once and writes all but the gradient once, and computes next to nothing: its speed is that of
the memory. Neighbouring threads take neighbouring elements, and go on in strides of the whole grid, so that a warp's 32
accesses are one transaction.
"""

import functools

import numpy as np

from minidl.kernels import update_kernels
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import assign, contiguous, to_numpy
from minidl.kernels.cuda.block import tree
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned
from minidl.kernels.update_rules import rules

__all__ = update_kernels.NAMES


# The kernels, by how many arrays the rule has for its state


def update0(rule):
    @cuda.jit
    def update(gradient, parameter, size, scale, decay, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            p = parameter[i]
            (parameter[i],) = rule(gradient[i] * scale + decay * p, p, *numbers)
            i = unsigned(i + step)

    return update


def update1(rule):
    @cuda.jit
    def update(gradient, parameter, a, size, scale, decay, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            p = parameter[i]
            parameter[i], a[i] = rule(gradient[i] * scale + decay * p, p, a[i], *numbers)
            i = unsigned(i + step)

    return update


def update2(rule):
    @cuda.jit
    def update(gradient, parameter, a, b, size, scale, decay, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            p = parameter[i]
            parameter[i], a[i], b[i] = rule(gradient[i] * scale + decay * p, p, a[i], b[i], *numbers)
            i = unsigned(i + step)

    return update


def update3(rule):
    @cuda.jit
    def update(gradient, parameter, a, b, c, size, scale, decay, numbers):
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            p = parameter[i]
            parameter[i], a[i], b[i], c[i] = rule(gradient[i] * scale + decay * p, p, a[i], b[i], c[i], *numbers)
            i = unsigned(i + step)

    return update


@functools.cache
def _rule(name: str, F: type):
    """The rule `name` on numbers of the type F, to be called in kernels."""
    zero, one = F(0), F(1)
    sign = cuda.jit(device=True)(lambda x: one if x > zero else -one if x < zero else x)
    return cuda.jit(device=True)(rules(one, scalar("sqrt", F), scalar("maximum", F), sign)[name])


@functools.cache
def _kernel(name: str, states: int, F: type):
    return (update0, update1, update2, update3)[states](_rule(name, F))


@functools.cache
def _moments_kernel(F: type):
    """As `update2`, but the parameter stays as it is, and each block sums the squares that the rule gives for it.

    A thread adds up its own elements, a block its threads' sums as a tree; the few sums of blocks are for the host. So
    no sum is long, and float32 loses next to nothing.
    """
    rule, add_up = _rule("lamb_moments", F), tree(scalar("add", F))
    threads, zero = THREADS, F(0)

    @cuda.jit
    def lamb_moments(gradient, parameter, mean, square, sums, size, scale, decay, numbers):
        shared = cuda.shared.array(threads, F)
        t, total = unsigned(cuda.threadIdx.x), zero
        size, i, step = unsigned(size), column(), columns()
        while i < size:
            p = parameter[i]
            squared, mean[i], square[i] = rule(gradient[i] * scale + decay * p, p, mean[i], square[i], *numbers)
            total += squared
            i = unsigned(i + step)
        total = add_up(shared, total, t, t, threads, 1)
        if t == 0:
            sums[cuda.blockIdx.x] = total

    return lamb_moments


# Launching them


def _apply(name: str, update: update_kernels.Update, parameter: CudaArray, gradient: CudaArray) -> float | None:
    """Do the update `name`; gives the sum of the rule's first results, if the update sums, and waits for it."""
    if not parameter.size:
        return 0.0 if update.sums else None
    changed, F, size = (parameter, *update.state), parameter.dtype.type, parameter.size
    rows, blocks = [contiguous(x) for x in changed], over(size)
    numbers = F(update.scale), F(update.decay), tuple(map(F, update.numbers))
    if update.sums:
        sums = CudaArray((blocks,), parameter.dtype)
        launch(_moments_kernel(F), blocks, THREADS, contiguous(gradient), *rows, sums, size, *numbers)
    else:
        kernel = _kernel(update.rule, len(update.state), F)
        launch(kernel, blocks, THREADS, contiguous(gradient), *rows, size, *numbers)
    for x, row in zip(changed, rows, strict=True):
        if row is not x:
            assign(x, row)
    return float(to_numpy(sums).sum(dtype=np.float64)) if update.sums else None


(
    sgd_update, adam_update, lamb_moments_update, adagrad_update, adadelta_update, rmsprop_update, lion_update,
) = update_kernels.kernels(_apply)  # fmt: skip
