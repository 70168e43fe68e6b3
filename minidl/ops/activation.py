"""Activation functions."""

from minidl.tensor import Op, Tensor


class ReLU(Op):
    """max(x, 0)."""

    def forward(self, x):
        self.y = self.kernels.relu(x)
        return self.y

    def backward(self, grad):
        return self.kernels.relu_grad(grad, self.y)


class Tanh(Op):
    """The hyperbolic tangent of x."""

    def forward(self, x):
        self.y = self.kernels.tanh(x)
        return self.y

    def backward(self, grad):  # d/dx = 1 - y^2
        k = self.kernels
        return k.multiply(grad, k.subtract(1, k.multiply(self.y, self.y)))


class Sigmoid(Op):
    """1 / (1 + exp(-x))."""

    def forward(self, x):
        self.y = self.kernels.sigmoid(x)
        return self.y

    def backward(self, grad):  # d/dx = y (1 - y)
        k = self.kernels
        return k.multiply(grad, k.multiply(self.y, k.subtract(1, self.y)))


class GELU(Op):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016)."""

    def __init__(self, approximate: str):
        self.approximate = approximate

    def forward(self, x):
        self.x = x
        return self.kernels.gelu(x, self.approximate)

    def backward(self, grad):
        return self.kernels.gelu_grad(grad, self.x, self.approximate)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return ReLU()(x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return Sigmoid()(x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x, exact ("none") or by tanh ("tanh")."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate={approximate!r}, it must be "none" or "tanh"')
    return GELU(approximate)(x)
