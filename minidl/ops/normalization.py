"""Normalisation."""

import math

from minidl.tensor import Op, Tensor


class LayerNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over the last dimension (Ba, Kiros and Hinton 2016)."""

    def __init__(self, eps: float):
        self.eps = eps

    def forward(self, x, weight, bias):
        k, self.shape, self.weight = self.kernels, x.shape, weight
        self.x = k.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))  # (rows, width)
        y, self.mean, self.inverse = k.layer_norm(self.x, weight, bias, self.eps)
        return k.reshape(y, x.shape)

    def backward(self, grad):
        k = self.kernels
        grad = k.reshape(grad, self.x.shape)
        grad_x, grad_weight, grad_bias = k.layer_norm_grad(grad, self.x, self.mean, self.inverse, self.weight)
        return k.reshape(grad_x, self.shape), grad_weight, grad_bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise the last dimension of x (..., width) to mean 0, variance 1; then times weight, plus bias (width,)."""
    if x.shape[-1:] != weight.shape:
        raise ValueError(f"layer_norm: the input has shape {x.shape}, its last size must be {weight.shape[0]}")
    return LayerNorm(eps)(x, weight, bias)
