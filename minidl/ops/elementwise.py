"""Elementwise functions of one tensor, and choices between two."""

import math

from minidl.ops.arithmetic import pair, unbroadcast
from minidl.tensor import Op, Tensor


class Exp(Op):
    """e^x."""

    def forward(self, x):
        self.y = self.kernels.exp(x)
        return self.y

    def backward(self, grad):
        return self.kernels.multiply(grad, self.y)


class Log(Op):
    """The natural logarithm of x."""

    def forward(self, x):
        self.x = x
        return self.kernels.log(x)

    def backward(self, grad):
        return self.kernels.divide(grad, self.x)


class Erf(Op):
    """The error function of x."""

    def forward(self, x):
        self.x = x
        return self.kernels.erf(x)

    def backward(self, grad):  # d/dx = 2 / sqrt(pi) exp(-x^2)
        k, x = self.kernels, self.x
        return k.multiply(grad, k.multiply(k.exp(k.negative(k.multiply(x, x))), 2 / math.sqrt(math.pi)))


class Sqrt(Op):
    """The square root of x."""

    def forward(self, x):
        self.y = self.kernels.sqrt(x)
        return self.y

    def backward(self, grad):  # d/dx = 1 / (2 sqrt(x))
        return self.kernels.divide(self.kernels.multiply(grad, 0.5), self.y)


class Abs(Op):
    """|x|; the derivative at 0 is 0."""

    def forward(self, x):
        self.x = x
        return self.kernels.absolute(x)

    def backward(self, grad):
        return self.kernels.multiply(grad, self.kernels.sign(self.x))


class Where(Op):
    """a where the condition is true, else b."""

    one_dtype = False

    def forward(self, condition, a, b):
        self.condition, self.shapes = condition, (a.shape, b.shape)
        return self.kernels.where(condition, a, b)

    def backward(self, grad):
        k, (a, b), condition = self.kernels, self.shapes, self.condition
        grad_a = unbroadcast(k, k.masked(grad, condition), a) if self.needs[1] else None
        return None, grad_a, unbroadcast(k, k.masked(grad, k.logical_not(condition)), b) if self.needs[2] else None


class Maximum(Op):
    """The larger of a and b, elementwise; where they are equal each gets half of the gradient."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return self.kernels.maximum(a, b)

    def backward(self, grad):
        k, a, b = self.kernels, self.a, self.b
        both = k.cast(k.equal(a, b), grad.dtype)
        grad = k.multiply(grad, k.subtract(1, k.multiply(both, 0.5)))
        grad_a, grad_b = k.masked(grad, k.logical_not(k.less(a, b))), k.masked(grad, k.logical_not(k.greater(a, b)))
        return unbroadcast(k, grad_a, a.shape), unbroadcast(k, grad_b, b.shape)


def exp(x: Tensor) -> Tensor:
    """e ** x."""
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log()(x)


def erf(x: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    return Erf()(x)


def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return Sqrt()(x)


def abs(x: Tensor) -> Tensor:
    """The absolute value."""
    return Abs()(x)


def where(condition: Tensor, a, b) -> Tensor:
    """a where the bool tensor `condition` is true, else b; all three broadcast."""
    a, b = pair("where", a, b)
    if a.dtype != b.dtype:
        raise TypeError(f"where needs a choice of one dtype, not of {a.dtype} and {b.dtype}")
    return Where()(condition, a, b)


def maximum(a, b) -> Tensor:
    """The larger of a and b, elementwise with broadcasting; where they are equal each gets half of the gradient."""
    return Maximum()(*pair("maximum", a, b))
