"""Normalisation: shapes and costs."""

from minidl.kernels.meta.record import MetaArray, result

__all__ = ["layer_norm", "layer_norm_grad"]


def layer_norm(x, weight, bias, eps):
    mean, inverse = MetaArray((x.shape[0], 1), x.dtype), MetaArray((x.shape[0], 1), x.dtype)
    y = result("layer_norm", (x, weight, bias), x.shape, x.dtype, 8, also_written=(mean, inverse))
    return y, mean, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    grad_weight, grad_bias = MetaArray(weight.shape, x.dtype), MetaArray(weight.shape, x.dtype)
    inputs = grad, x, mean, inverse, weight
    grad_x = result("layer_norm_grad", inputs, x.shape, x.dtype, 14, also_written=(grad_weight, grad_bias))
    return grad_x, grad_weight, grad_bias
