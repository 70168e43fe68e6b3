"""Normalisation layers, with PyTorch's names and arguments."""

from minidl import ops
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter


class LayerNorm(Module):
    """Normalise the last dimension, of `width`, to mean 0 and variance 1; then a learned scale and offset."""

    def __init__(self, width: int, eps: float = 1e-5):
        self.eps = eps
        self.weight = Parameter((width,), init.constant(1))
        self.bias = Parameter((width,), init.constant(0))

    def forward(self, x):
        return ops.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.weight.shape[0]}, eps={self.eps}"
