"""Arithmetic with broadcasting."""

from numbers import Real

from minidl.dtypes import float32, int64
from minidl.op import Op
from minidl.ops.broadcast import Broadcast
from minidl.ops.promotion import floating, one_device, pair
from minidl.ops.shape import cast, unbroadcast
from minidl.tensor import Tensor


class Add(Broadcast):
    """a + b."""

    passes_gradient = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return self.kernels.add(a, b)

    def backward(self, grad):
        (a, b), shape = self.shapes, grad.shape
        if shape == a and shape == b:
            return grad, grad
        k, needs = self.kernels, self.needs
        return unbroadcast(k, grad, a) if needs[0] else None, unbroadcast(k, grad, b) if needs[1] else None


class Subtract(Broadcast):
    """a - b."""

    passes_gradient = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return self.kernels.subtract(a, b)

    def backward(self, grad):
        k, (a, b), needs = self.kernels, self.shapes, self.needs
        grad_b = unbroadcast(k, k.negative(grad), b) if needs[1] else None
        return unbroadcast(k, grad, a) if needs[0] else None, grad_b


class Multiply(Broadcast):
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


class Divide(Broadcast):
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


class Reciprocal(Op):
    """1 / x."""

    def forward(self, x):
        self.y = self.kernels.divide(1, x)
        return self.y

    def backward(self, grad):  # d/dx = -1 / x^2
        k = self.kernels
        return k.multiply(k.negative(grad), k.multiply(self.y, self.y))


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


class PowerOf(Op):
    """a ** b, elementwise."""

    def forward(self, a, b):
        self.a, self.b = a, b
        self.y = self.kernels.power(a, b)
        return self.y

    def backward(self, grad):
        k, a, b = self.kernels, self.a, self.b
        grad_a = grad_b = None
        if self.needs[0]:  # d/da = b a^(b - 1), and 0 for b = 0, where a ** -1 could be infinite
            slope = k.multiply(b, k.power(a, k.subtract(b, 1)))
            grad_a = unbroadcast(k, k.multiply(grad, k.where(k.equal(b, 0), 0, slope)), a.shape)
        if self.needs[1]:  # d/db = a^b log(a), and 0 for a = 0, where the logarithm is infinite
            flat = k.logical_and(k.equal(a, 0), k.greater_equal(b, 0))
            grad_b = unbroadcast(k, k.multiply(grad, k.where(flat, 0, k.multiply(self.y, k.log(a)))), b.shape)
        return grad_a, grad_b


class Remainder(Op):
    """a - floor(a / b) b, elementwise."""

    passes_gradient = True

    def forward(self, a, b):
        self.a, self.b = a, b
        return self.kernels.remainder(a, b)

    def backward(self, grad):
        k, a, b = self.kernels, self.a, self.b
        # floor_divide, as floor(a / b) may be rounded to another whole number than the remainder was taken with
        grad_b = k.negative(k.multiply(grad, k.floor_divide(a, b)))
        return unbroadcast(k, grad, a.shape), unbroadcast(k, grad_b, b.shape)


def add(a, b) -> Tensor:
    """a + b with broadcasting; either may be a number. Of bools: whether one of them is true."""
    return Add()(a, b)


def subtract(a, b) -> Tensor:
    """a - b with broadcasting; either may be a number. TypeError for two bools."""
    a, b = pair("subtract", a, b)
    if a.data.dtype.kind == "b":
        raise TypeError("subtract of two bools has no meaning: use a ^ b or ~a, or convert with .to(dtype)")
    return Subtract()(a, b)


def multiply(a, b) -> Tensor:
    """a * b, elementwise with broadcasting; either may be a number."""
    return Multiply()(a, b)


def divide(a, b) -> Tensor:
    """a / b with broadcasting, true division: integers give float32; either may be a number."""
    a, b = pair("divide", a, b)
    return Divide()(a, b) if a.data.dtype.kind == "f" else Divide()(floating(a), floating(b))


def floor_divide(a, b) -> Tensor:
    """floor(a / b) with broadcasting, in the dtype of a and b; either may be a number. It has no derivative.

    ZeroDivisionError: an integer is divided by 0.
    """
    a, b = pair("floor_divide", a, b)
    if a.dtype.kind == "b":
        raise TypeError("floor_divide needs numbers, not bools: convert with .to(dtype)")
    return Tensor(one_device("floor_divide", a, b).floor_divide(a.data, b.data))


def remainder(a, b) -> Tensor:
    """a - floor(a / b) b with broadcasting, which has the sign of b; either may be a number.

    ZeroDivisionError: an integer is divided by 0.
    """
    a, b = pair("remainder", a, b)
    if a.dtype.kind == "b":
        raise TypeError("remainder needs numbers, not bools: convert with .to(dtype)")
    return Remainder()(a, b)


def negative(x: Tensor) -> Tensor:
    """-x."""
    if x.data.dtype.kind == "b":
        raise TypeError("negative of bools has no meaning: use ~x, or convert with .to(dtype)")
    return Negative()(x)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x; integers give float32."""
    return Reciprocal()(floating(x))


def square(x: Tensor) -> Tensor:
    """x * x."""
    return power(x, 2)


def power(x, exponent) -> Tensor:
    """x ** exponent, elementwise with broadcasting; either may be a number.

    ValueError: an integer has an exponent that is negative.
    """
    if isinstance(exponent, Real) and isinstance(x, Tensor):
        if x.dtype.kind == "b" or (x.dtype.kind == "i" and isinstance(exponent, float)):
            x = cast(x, float32 if isinstance(exponent, float) else int64)
        return Power(exponent)(x)
    a, b = pair("power", x, exponent)
    if a.dtype.kind == "b":
        a, b = cast(a, int64), cast(b, int64)
    return PowerOf()(a, b)
