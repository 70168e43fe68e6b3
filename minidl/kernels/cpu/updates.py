"""Optimizer updates: elementwise, in place, on 1-D arrays.

Each multiplies the gradient by `scale` and, unless it says otherwise, adds `weight_decay` times the parameter first.
"""

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.fast.cache_blocks import BLOCK, blocks
from minidl.kernels.cpu.fast.threads import THREAD, split
from minidl.kernels.cpu.reduction import squared_norm

__all__ = [
    "adadelta_update", "adagrad_update", "adam_update", "lamb_moments_update", "lion_update", "rmsprop_update",
    "sgd_update",
]  # fmt: skip

SGD_COMPILED_FROM = 1 << 19  # elements: SGD makes so few passes that NumPy is not much slower for fewer
F = np.float32


def _blocks(parameter, gradient, weight_decay, scale):
    """Slices that cover the parameter; what is there of it, the gradient g with weight decay, and a temporary."""
    buffers = np.empty((2, min(parameter.size, BLOCK)), parameter.dtype)
    for part in blocks(slice(0, parameter.size)):
        p, (g, t) = parameter[part], buffers[:, : part.stop - part.start]
        np.multiply(gradient[part], scale, out=g)
        if weight_decay:
            np.multiply(p, weight_decay, out=t)
            g += t
        yield part, p, g, t


def _compiled(name, arrays, *numbers):
    """The compiled update on these 1-D arrays, cut over threads."""
    kernel, numbers = getattr(fast.updates, name), [F(number) for number in numbers]
    split(arrays[0].size, lambda part: kernel(*(array[part] for array in arrays), *numbers), THREAD)


def _average(mean, x, kept, t):
    """mean = kept * mean + (1 - kept) * x, by way of the temporary t."""
    mean *= kept
    np.multiply(x, 1 - kept, out=t)
    mean += t


def sgd_update(parameter, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, scale):
    """One step of `optim.SGD`, in place; `velocity` is None without momentum."""
    if fast.use_compiled(parameter, SGD_COMPILED_FROM):
        if velocity is None:
            _compiled("sgd_update", (parameter, gradient), lr, weight_decay, scale)
        else:
            numbers = (lr, momentum, 1 - dampening, weight_decay, nesterov, scale)
            _compiled("momentum_update", (parameter, gradient, velocity), *numbers)
        return
    for part, p, g, t in _blocks(parameter, gradient, weight_decay, scale):
        if velocity is not None:
            v = velocity[part]
            v *= momentum
            if dampening:
                np.multiply(g, 1 - dampening, out=t)
                v += t
            else:
                v += g
            if nesterov:
                np.multiply(v, momentum, out=t)
                g += t
            else:
                g = v
        np.multiply(g, lr, out=t)
        p -= t


def adam_update(
    parameter, gradient, mean, square, largest, beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink,
    scale,
):  # fmt: skip
    """One step of `optim.Adam`, in place and its kin, which differ in the numbers that they give.

    p = shrink * p - (of_mean * m + of_gradient * g) / (root * sqrt(v) + eps) with the new moments m and v, or instead
    of v with the `largest` so far, where that is not None.
    """
    if fast.use_compiled(parameter) and largest is None:
        numbers = (beta1, beta2, eps, of_mean, of_gradient, root, weight_decay, shrink, scale)
        _compiled("adam_update", (parameter, gradient, mean, square), *numbers)
        return
    for part, p, g, t in _blocks(parameter, gradient, weight_decay, scale):
        m, v = mean[part], square[part]
        if shrink != 1:
            p *= shrink
        _average(m, g, beta1, t)
        step = of_mean * m
        if of_gradient:
            step += of_gradient * g
        g *= g
        _average(v, g, beta2, t)
        if largest is not None:
            v = np.maximum(largest[part], v, out=largest[part])
        np.sqrt(v, out=g)
        g *= root
        g += eps
        step /= g
        p -= step


def lamb_moments_update(
    parameter, gradient, mean, square, beta1, beta2, eps, of_mean, root, weight_decay, scale
):  # fmt: skip
    """The first half of a step of `optim.LAMB`: moves the moments on in place, and gives the squared norm of

    u = of_mean * m / (root * sqrt(v) + eps) + weight_decay * p. The gradient is without weight decay.
    """
    if fast.use_compiled(parameter):
        numbers = (beta1, beta2, eps, of_mean, root, weight_decay, scale)
        return fast.updates.lamb_moments_update(parameter, gradient, mean, square, *map(F, numbers))
    total = 0.0
    for part, p, g, t in _blocks(parameter, gradient, 0.0, scale):
        m, v = mean[part], square[part]
        _average(m, g, beta1, t)
        g *= g
        _average(v, g, beta2, t)
        np.sqrt(v, out=g)
        g *= root
        g += eps
        np.divide(m, g, out=t)
        t *= of_mean
        np.multiply(p, weight_decay, out=g)
        t += g
        total += squared_norm(t)
    return total


def adagrad_update(parameter, gradient, total, lr, eps, weight_decay, scale):
    """One step of `optim.Adagrad`, in place; lr is that of this step."""
    if fast.use_compiled(parameter):
        _compiled("adagrad_update", (parameter, gradient, total), lr, eps, weight_decay, scale)
        return
    for part, p, g, t in _blocks(parameter, gradient, weight_decay, scale):
        np.multiply(g, g, out=t)
        total[part] += t
        np.sqrt(total[part], out=t)
        t += eps
        g *= lr
        g /= t
        p -= g


def adadelta_update(parameter, gradient, square, step_square, lr, rho, eps, weight_decay, scale):
    """One step of `optim.Adadelta`, in place."""
    if fast.use_compiled(parameter):
        _compiled("adadelta_update", (parameter, gradient, square, step_square), lr, rho, eps, weight_decay, scale)
        return
    for part, p, g, t in _blocks(parameter, gradient, weight_decay, scale):
        v, u = square[part], step_square[part]
        _average(v, g * g, rho, t)
        g *= np.sqrt((u + eps) / (v + eps))
        _average(u, g * g, rho, t)
        g *= lr
        p -= g


def rmsprop_update(parameter, gradient, square, mean, velocity, lr, alpha, eps, momentum, weight_decay, scale):
    """One step of `optim.RMSprop`, in place; `mean` is None unless it is centered, `velocity` without momentum."""
    if fast.use_compiled(parameter) and mean is None and velocity is None:
        _compiled("rmsprop_update", (parameter, gradient, square), lr, alpha, eps, weight_decay, scale)
        return
    for part, p, g, t in _blocks(parameter, gradient, weight_decay, scale):
        v = square[part]
        _average(v, g * g, alpha, t)
        if mean is not None:
            _average(mean[part], g, alpha, t)
            v = v - mean[part] * mean[part]
        np.sqrt(v, out=t)
        t += eps
        g /= t
        if velocity is not None:
            velocity[part] *= momentum
            velocity[part] += g
            g = velocity[part]
        np.multiply(g, lr, out=t)
        p -= t


def lion_update(parameter, gradient, mean, lr, beta1, beta2, weight_decay, scale):
    """One step of `optim.Lion`, in place; the gradient is without weight decay."""
    if fast.use_compiled(parameter):
        _compiled("lion_update", (parameter, gradient, mean), lr, beta1, beta2, weight_decay, scale)
        return
    for part, p, g, t in _blocks(parameter, gradient, 0.0, scale):
        m = mean[part]
        np.multiply(g, 1 - beta1, out=t)
        t += beta1 * m
        np.sign(t, out=t)
        if weight_decay:
            t += weight_decay * p
        t *= lr
        p -= t
        _average(m, g, beta2, t)
