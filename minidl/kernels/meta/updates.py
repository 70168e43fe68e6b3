"""Optimizer updates: costs."""

from minidl.kernels import update_kernels
from minidl.kernels.meta.record import in_place, reduce_to_number

__all__ = update_kernels.NAMES


def _apply(name, update, parameter, gradient):
    flops = update.flops * parameter.size
    if update.sums:
        return reduce_to_number(name, parameter, flops, (gradient,), update.state, kind="update")
    return in_place(name, parameter, (parameter, gradient, *update.state), flops, update.state, kind="update")


(
    sgd_update, adam_update, lamb_moments_update, adagrad_update, adadelta_update, rmsprop_update, lion_update,
) = update_kernels.kernels(_apply)  # fmt: skip
