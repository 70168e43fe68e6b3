"""Activation functions."""

import math

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.arithmetic import multiply, negative
from minidl.ops.choice import where
from minidl.ops.elementwise import erf, exp
from minidl.ops.promotion import floating
from minidl.ops.shape import reshape, unbroadcast
from minidl.tensor import Tensor

GELU_LINEAR = 2 * math.sqrt(2 / math.pi)


class ReLU(Op):
    """max(x, 0)."""

    def forward(self, x):
        self.y = self.kernels.relu(x)
        return self.y

    def backward(self, grad):
        return self.kernels.relu_grad(grad, self.y)


@tensor_kernel
def relu_grad(grad, y):
    return where(y <= 0, 0.0, grad)


class LeakyReLU(Op):
    """x where it is positive, elsewhere slope * x (Maas et al. 2013)."""

    def __init__(self, slope: float):
        self.slope = slope

    def forward(self, x):
        k, self.x = self.kernels, x
        return k.where(k.greater(x, 0), x, k.multiply(x, self.slope))

    def backward(self, grad):
        k = self.kernels
        return k.where(k.greater(self.x, 0), grad, k.multiply(grad, self.slope))


class PReLU(Op):
    """LeakyReLU with a learned slope, which broadcasts against x (He et al. 2015, "Delving Deep into Rectifiers")."""

    def forward(self, x, slope):
        k, self.x, self.slope = self.kernels, x, slope
        return k.where(k.greater(x, 0), x, k.multiply(x, slope))

    def backward(self, grad):
        k, x, slope = self.kernels, self.x, self.slope
        positive = k.greater(x, 0)
        grad_x = k.where(positive, grad, k.multiply(grad, slope))
        return grad_x, unbroadcast(k, k.masked(k.multiply(grad, x), k.logical_not(positive)), slope.shape)


class ELU(Op):
    """x where it is positive, elsewhere alpha * (e^x - 1) (Clevert, Unterthiner and Hochreiter 2015)."""

    def __init__(self, alpha: float):
        self.alpha = alpha

    def forward(self, x):
        k, self.x = self.kernels, x
        return k.where(k.greater(x, 0), x, k.multiply(k.expm1(k.minimum(x, 0)), self.alpha))

    def backward(self, grad):
        k = self.kernels
        slope = k.multiply(k.exp(k.minimum(self.x, 0)), self.alpha)
        return k.where(k.greater(self.x, 0), grad, k.multiply(grad, slope))


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


class SiLU(Op):
    """x / (1 + exp(-x)) (Elfwing, Uchibe and Doya 2017)."""

    def forward(self, x):
        k, self.x = self.kernels, x
        return k.multiply(x, k.sigmoid(x))

    def backward(self, grad):  # with s = sigmoid(x): d/dx = s (1 + x (1 - s))
        k, x = self.kernels, self.x
        s = k.sigmoid(x)
        return k.multiply(grad, k.multiply(s, k.add(1, k.multiply(x, k.subtract(1, s)))))


class SwiGLU(Op):
    """silu(gate) * up of the halves of x along its last dimension (Shazeer 2020, equation 6)."""

    def forward(self, x):  # (..., 2 * width)
        k, self.x = self.kernels, x
        gate, up = self._halves(x)
        return k.multiply(k.multiply(gate, k.sigmoid(gate)), up)

    def backward(self, grad):  # with s = sigmoid(gate): the slope of silu is s + silu (1 - s)
        k = self.kernels
        gate, up = self._halves(self.x)
        s = k.sigmoid(gate)
        silu = k.multiply(gate, s)
        slope = k.add(s, k.multiply(silu, k.subtract(1, s)))
        return k.concatenate([k.multiply(k.multiply(grad, up), slope), k.multiply(grad, silu)], len(grad.shape) - 1)

    def _halves(self, x):
        width = x.shape[-1] // 2
        return [self.kernels.index(x, (..., half)) for half in (slice(width), slice(width, None))]


class Softplus(Op):
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold (Dugas et al. 2000)."""

    def __init__(self, beta: float, threshold: float):
        self.beta, self.threshold = beta, threshold

    def forward(self, x):
        k, self.x = self.kernels, x
        scaled = k.multiply(x, self.beta)
        soft = k.divide(k.log1p(k.exp(k.minimum(scaled, self.threshold))), self.beta)
        return k.where(k.greater(scaled, self.threshold), x, soft)

    def backward(self, grad):
        k = self.kernels
        scaled = k.multiply(self.x, self.beta)
        return k.where(k.greater(scaled, self.threshold), grad, k.multiply(grad, k.sigmoid(scaled)))


class GELU(Op):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016)."""

    def __init__(self, approximate: str):
        self.approximate = approximate

    def forward(self, x):
        self.x = x
        return self.kernels.gelu(x, self.approximate)

    def backward(self, grad):
        return self.kernels.gelu_grad(grad, self.x, self.approximate)


@tensor_kernel
def gelu_grad(grad, x, approximate):
    if approximate == "tanh":  # 0.5 (1 + tanh u) = sigmoid(2u)
        s = sigmoid(x * (GELU_LINEAR * (1 + 0.044715 * x * x)))
        return grad * (s + x * s * (1 - s) * GELU_LINEAR * (1 + 3 * 0.044715 * x * x))
    density = exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return grad * (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * density)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return ReLU()(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, elsewhere negative_slope * x."""
    return LeakyReLU(negative_slope)(x)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, elsewhere weight * x; weight (1,), or (channels,) for x (batch, channels, ...)."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(
            f"prelu: the weight has shape {weight.shape}, for an input {x.shape} it is (1,) or ({channels},)"
        )
    return PReLU()(x, reshape(weight, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else reshape(weight, (1,) * x.ndim))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, elsewhere alpha * (e^x - 1)."""
    return ELU(alpha)(x)


@tensor_kernel
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh()(floating(x))


@tensor_kernel
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return Sigmoid()(floating(x))


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up of the halves, gate and up, of x (..., 2 * width) (Shazeer 2020, equation 6)."""
    if not x.ndim or x.shape[-1] % 2:
        raise ValueError(f"swiglu halves the last dimension, that of shape {x.shape} is not even")
    return SwiGLU()(x)


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), also called swish."""
    return SiLU()(x)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, a smooth relu; x itself where beta x is above the threshold."""
    return Softplus(beta, threshold)(x)


def logsigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), without its underflow."""
    return negative(softplus(negative(x), threshold=40))  # beyond, log(1 + e^x) is x to 16 digits


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)) (Misra 2019)."""
    return multiply(x, tanh(softplus(x)))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x, exact ("none") or by tanh ("tanh")."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate={approximate!r}, it must be "none" or "tanh"')
    return GELU(approximate)(x)
