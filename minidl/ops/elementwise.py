"""Elementwise functions of one tensor; integers become float32 where the result is not an integer."""

import math

from minidl.op import Op
from minidl.ops.promotion import floating
from minidl.tensor import Tensor


class Exp(Op):
    """e^x."""

    def forward(self, x):
        self.y = self.kernels.exp(x)
        return self.y

    def backward(self, grad):
        return self.kernels.multiply(grad, self.y)


class Expm1(Op):
    """e^x - 1."""

    def forward(self, x):
        self.y = self.kernels.expm1(x)
        return self.y

    def backward(self, grad):
        return self.kernels.multiply(grad, self.kernels.add(self.y, 1))


class Log(Op):
    """The natural logarithm of x."""

    def forward(self, x):
        self.x = x
        return self.kernels.log(x)

    def backward(self, grad):
        return self.kernels.divide(grad, self.x)


class Log1p(Op):
    """The natural logarithm of 1 + x."""

    def forward(self, x):
        self.x = x
        return self.kernels.log1p(x)

    def backward(self, grad):
        return self.kernels.divide(grad, self.kernels.add(self.x, 1))


class Log2(Op):
    """The logarithm of x to the base 2."""

    def forward(self, x):
        self.x = x
        return self.kernels.log2(x)

    def backward(self, grad):
        return self.kernels.divide(grad, self.kernels.multiply(self.x, math.log(2)))


class Sqrt(Op):
    """The square root of x."""

    def forward(self, x):
        self.y = self.kernels.sqrt(x)
        return self.y

    def backward(self, grad):  # d/dx = 1 / (2 sqrt(x))
        return self.kernels.divide(self.kernels.multiply(grad, 0.5), self.y)


class Rsqrt(Op):
    """1 / sqrt(x)."""

    def forward(self, x):
        self.y = self.kernels.divide(1, self.kernels.sqrt(x))
        return self.y

    def backward(self, grad):  # d/dx = -y^3 / 2
        k, y = self.kernels, self.y
        return k.multiply(k.multiply(grad, -0.5), k.multiply(y, k.multiply(y, y)))


class Sin(Op):
    """The sine of x."""

    def forward(self, x):
        self.x = x
        return self.kernels.sin(x)

    def backward(self, grad):
        return self.kernels.multiply(grad, self.kernels.cos(self.x))


class Cos(Op):
    """The cosine of x."""

    def forward(self, x):
        self.x = x
        return self.kernels.cos(x)

    def backward(self, grad):
        return self.kernels.negative(self.kernels.multiply(grad, self.kernels.sin(self.x)))


class Erf(Op):
    """The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    def forward(self, x):
        self.x = x
        return self.kernels.erf(x)

    def backward(self, grad):
        k = self.kernels
        density = k.multiply(k.exp(k.negative(k.multiply(self.x, self.x))), 2 / math.sqrt(math.pi))
        return k.multiply(grad, density)


class Abs(Op):
    """|x|; the derivative at 0 is 0."""

    def forward(self, x):
        self.x = x
        return self.kernels.absolute(x)

    def backward(self, grad):
        return self.kernels.multiply(grad, self.kernels.sign(self.x))


class Step(Op):
    """A function that is constant but for its jumps, by the name of its kernel; the derivative is 0."""

    def __init__(self, kernel: str):
        self.kernel = kernel

    def forward(self, x):
        return getattr(self.kernels, self.kernel)(x)

    def backward(self, grad):
        return self.kernels.full(grad.shape, 0, grad.dtype)


def exp(x: Tensor) -> Tensor:
    """e ** x."""
    return Exp()(floating(x))


def expm1(x: Tensor) -> Tensor:
    """e ** x - 1, exact for x near 0."""
    return Expm1()(floating(x))


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return Log()(floating(x))


def log1p(x: Tensor) -> Tensor:
    """The natural logarithm of 1 + x, exact for x near 0."""
    return Log1p()(floating(x))


def log2(x: Tensor) -> Tensor:
    """The logarithm to the base 2."""
    return Log2()(floating(x))


def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return Sqrt()(floating(x))


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x)."""
    return Rsqrt()(floating(x))


def sin(x: Tensor) -> Tensor:
    """The sine of x in radians."""
    return Sin()(floating(x))


def cos(x: Tensor) -> Tensor:
    """The cosine of x in radians."""
    return Cos()(floating(x))


def erf(x: Tensor) -> Tensor:
    """The error function, within 3e-7 (float32) or 1e-15 (float64)."""
    return Erf()(floating(x))


def abs(x: Tensor) -> Tensor:
    """The absolute value."""
    return Abs()(x)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; 0 where x is NaN. The derivative is 0."""
    return Step("sign")(x)


def floor(x: Tensor) -> Tensor:
    """The largest whole number that is not above x. The derivative is 0."""
    return Step("floor")(x)


def ceil(x: Tensor) -> Tensor:
    """The smallest whole number that is not below x. The derivative is 0."""
    return Step("ceil")(x)


def round(x: Tensor) -> Tensor:
    """The nearest whole number, the even one of two. The derivative is 0."""
    return Step("round")(x)
