"""The layers, with PyTorch's names, arguments and initialisation."""

import math

from minidl import ops
from minidl.nn import init
from minidl.nn.module import Module, Parameter
from minidl.ops.dropout import check_fraction


class Linear(Module):
    """y = x @ weight^T + bias, on the last dimension."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: in_features={in_features}, out_features={out_features}, both must be at least 1")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter((out_features, in_features), init.fan_in_uniform(in_features))
        self.bias = Parameter((out_features,), init.fan_in_uniform(in_features)) if bias else None

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Conv2d(Module):
    """Convolution of images (batch, in_channels, height, width); sizes are an int or a pair (vertical, horizontal)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, bias: bool = True):
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding = stride, padding
        recipe = init.fan_in_uniform(in_channels * math.prod(kernel))
        self.weight = Parameter((out_channels, in_channels, *kernel), recipe)
        self.bias = Parameter((out_channels,), recipe) if bias else None

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self):
        out_channels, in_channels, *kernel = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={tuple(kernel)}, stride={self.stride}, padding={self.padding}"
        )


class Embedding(Module):
    """A table of `num_embeddings` learned rows of `embedding_dim`, looked up by index; it starts normal with `std`."""

    def __init__(self, num_embeddings: int, embedding_dim: int, std: float = 1.0):
        self.weight = Parameter((num_embeddings, embedding_dim), init.normal(std))

    def forward(self, indices):
        return ops.embedding(indices, self.weight)

    def extra_repr(self):
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Dropout(Module):
    """In training, zero a random fraction p of the elements and divide the rest by 1 - p."""

    def __init__(self, p: float = 0.5):
        check_fraction(p)
        self.p = p

    def forward(self, x):
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class Flatten(Module):
    """Join the dimensions from start_dim to end_dim into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """Gives back its input."""

    def forward(self, x):
        return x
