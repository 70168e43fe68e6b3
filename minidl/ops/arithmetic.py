"""Arithmetic with broadcasting."""

import math
from numbers import Number

import numpy as np

from minidl.ops.shape import cast
from minidl.tensor import Op, Tensor, float32


def unbroadcast(kernels, grad, shape):
    """Sum `grad` over the dimensions that broadcasting added or stretched, so that it has `shape` again."""
    if grad.shape == shape:
        return grad
    added = len(grad.shape) - len(shape)
    stretched = (d for d, n in enumerate(shape, added) if n == 1 and grad.shape[d] != 1)
    grad = kernels.sum(grad, (*range(added), *stretched), True)
    return kernels.reshape(grad, shape)


class Add(Op):
    """a + b."""

    passes_gradient = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return self.kernels.add(a, b)

    def backward(self, grad):
        k, (a, b) = self.kernels, self.shapes
        return unbroadcast(k, grad, a), unbroadcast(k, grad, b)


class Subtract(Op):
    """a - b."""

    passes_gradient = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return self.kernels.subtract(a, b)

    def backward(self, grad):
        k, (a, b) = self.kernels, self.shapes
        return unbroadcast(k, grad, a), unbroadcast(k, k.negative(grad), b) if self.needs[1] else None


class Multiply(Op):
    """a * b, elementwise."""

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.a = a if self.needs[1] else None
        self.b = b if self.needs[0] else None
        return self.kernels.multiply(a, b)

    def backward(self, grad):
        k, (a, b) = self.kernels, self.shapes
        grad_a = unbroadcast(k, k.multiply(grad, self.b), a) if self.needs[0] else None
        grad_b = unbroadcast(k, k.multiply(grad, self.a), b) if self.needs[1] else None
        return grad_a, grad_b


class Divide(Op):
    """a / b, elementwise."""

    def forward(self, a, b):
        self.shape, self.b = a.shape, b
        self.a = a if self.needs[1] else None
        return self.kernels.divide(a, b)

    def backward(self, grad):
        k, b = self.kernels, self.b
        ratio = k.divide(grad, b)  # d/da = 1 / b
        grad_a = unbroadcast(k, ratio, self.shape) if self.needs[0] else None
        grad_b = None
        if self.needs[1]:  # d/db = -a / b^2
            grad_b = unbroadcast(k, k.negative(k.divide(k.multiply(ratio, self.a), b)), b.shape)
        return grad_a, grad_b


class Negative(Op):
    """-x."""

    def forward(self, x):
        return self.kernels.negative(x)

    def backward(self, grad):
        return self.kernels.negative(grad)


class Power(Op):
    """x ** exponent, for a number `exponent`."""

    def __init__(self, exponent: float):
        self.exponent = exponent

    def forward(self, x):
        self.x = x if self.needs[0] else None
        return self.kernels.power(x, self.exponent)

    def backward(self, grad):
        k, n = self.kernels, self.exponent
        if n == 0:  # x ** -1 below would be infinite at 0
            return k.full(grad.shape, 0, grad.dtype)
        return k.multiply(grad, k.multiply(k.power(self.x, n - 1), n))


class Exponential(Op):
    """base ** x, for a positive number `base`."""

    def __init__(self, base: float):
        self.base = base

    def forward(self, x):
        self.y = self.kernels.power(self.base, x)
        return self.y

    def backward(self, grad):  # d/dx = base^x log(base)
        k = self.kernels
        return k.multiply(k.multiply(grad, self.y), math.log(self.base))


def pair(name: str, a, b) -> tuple[Tensor, Tensor]:
    """Both operands of the operation `name` as tensors: a number takes the dtype and device of the other.

    An integer tensor with a Python float becomes float32, as in PyTorch. ValueError: the shapes do not broadcast.
    """
    if not isinstance(a, Tensor):
        b, a = _like(name, b, a)
    elif not isinstance(b, Tensor):
        a, b = _like(name, a, b)
    elif a.shape != b.shape:
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ValueError(f"{name}: shapes {a.shape} and {b.shape} do not broadcast") from None
    return a, b


def _like(name, x, number):
    if not isinstance(number, Number):
        raise TypeError(f"{name} of a tensor and a {type(number).__name__}: make it a tensor with minidl.tensor(...)")
    if x.dtype.kind != "f" and isinstance(number, float):
        x = cast(x, float32)
    return x, Tensor(x.kernels.array(number, x.dtype))


def add(a, b) -> Tensor:
    """a + b with broadcasting; either may be a number."""
    return Add()(*pair("add", a, b))


def subtract(a, b) -> Tensor:
    """a - b with broadcasting; either may be a number."""
    return Subtract()(*pair("subtract", a, b))


def multiply(a, b) -> Tensor:
    """a * b, elementwise with broadcasting; either may be a number."""
    return Multiply()(*pair("multiply", a, b))


def divide(a, b) -> Tensor:
    """a / b with broadcasting, true division: integers give float32; either may be a number."""
    a, b = (cast(x, float32) if x.dtype.kind != "f" else x for x in pair("divide", a, b))
    return Divide()(a, b)


def negative(x: Tensor) -> Tensor:
    """-x."""
    return Negative()(x)


def power(x, exponent) -> Tensor:
    """x ** exponent, elementwise: one is a tensor, the other a number, which as the base must be positive."""
    if isinstance(x, Number):
        if x <= 0:
            raise ValueError(f"power: base {x}, the base of a tensor of exponents must be positive")
        _, exponent = pair("power", x, exponent)
        return Exponential(x)(exponent)
    if not isinstance(exponent, Number):
        raise TypeError(f"power of a tensor needs a number as exponent, not a {type(exponent).__name__}")
    return Power(exponent)(x)
