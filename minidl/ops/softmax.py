"""Softmax and its logarithm."""

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.arithmetic import multiply, subtract
from minidl.ops.elementwise import exp
from minidl.ops.reduction import sum
from minidl.ops.shape import along_a_dim, normalize_dim
from minidl.tensor import Tensor


class Softmax(Op):
    """exp(x) / sum(exp(x)) along `dim`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        self.y = self.kernels.softmax(x, self.dim)
        return self.y

    def backward(self, grad):
        return self.kernels.softmax_grad(grad, self.y, self.dim)


@tensor_kernel
def softmax_grad(grad, y, dim):
    return multiply(y, subtract(grad, sum(multiply(grad, y), dim, True)))


class LogSoftmax(Op):
    """x - log(sum(exp(x))) along `dim`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        self.y = self.kernels.log_softmax(x, self.dim)
        return self.y

    def backward(self, grad):
        return self.kernels.log_softmax_grad(grad, self.y, self.dim)


@tensor_kernel
def log_softmax_grad(grad, y, dim):
    return subtract(grad, multiply(exp(y), sum(grad, dim, True)))


@along_a_dim
def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`."""
    return Softmax(normalize_dim(dim, x.shape))(x)


@along_a_dim
def log_softmax(x: Tensor, dim: int) -> Tensor:
    """The logarithm of softmax(x, dim), without its overflow."""
    return LogSoftmax(normalize_dim(dim, x.shape))(x)
