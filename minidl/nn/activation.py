"""The activation functions as layers."""

from collections.abc import Callable

from minidl import ops
from minidl.nn.init import constant
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.tensor import Tensor


class Activation(Module):
    """A subclass names the function of which it is the layer, and the attributes that are its options, in order."""

    function: Callable[..., Tensor]
    options: tuple[str, ...] = ()

    def forward(self, x):
        return self.function(x, *[getattr(self, name) for name in self.options])

    def extra_repr(self):
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


class ReLU(Activation):
    """max(x, 0)."""

    function = staticmethod(ops.relu)


class LeakyReLU(Activation):
    """x where it is positive, elsewhere negative_slope * x."""

    function, options = staticmethod(ops.leaky_relu), ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope


class PReLU(Module):
    """LeakyReLU with a learned slope that starts at `init`: one, or one for each of `num_parameters` channels.

    The channels are dimension 1 of the input.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        self.weight = Parameter((num_parameters,), init=constant(init))

    def forward(self, x):
        return ops.prelu(x, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.weight.shape[0]}"


class ELU(Activation):
    """x where it is positive, elsewhere alpha * (e^x - 1)."""

    function, options = staticmethod(ops.elu), ("alpha",)

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha


class GELU(Activation):
    """x times the normal distribution function of x; approximate: "none" or "tanh"."""

    function, options = staticmethod(ops.gelu), ("approximate",)

    def __init__(self, approximate: str = "none"):
        self.approximate = approximate


class SiLU(Activation):
    """x / (1 + exp(-x)), also called swish."""

    function = staticmethod(ops.silu)


class Mish(Activation):
    """x tanh(softplus(x))."""

    function = staticmethod(ops.mish)


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    function = staticmethod(ops.sigmoid)


class LogSigmoid(Activation):
    """log(1 / (1 + exp(-x)))."""

    function = staticmethod(ops.logsigmoid)


class Tanh(Activation):
    """The hyperbolic tangent."""

    function = staticmethod(ops.tanh)


class Softplus(Activation):
    """log(1 + exp(beta x)) / beta; x itself where beta x is above the threshold."""

    function, options = staticmethod(ops.softplus), ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        self.beta, self.threshold = beta, threshold


class Softmax(Activation):
    """exp(x) / sum(exp(x)) along `dim`."""

    function, options = staticmethod(ops.softmax), ("dim",)

    def __init__(self, dim: int):
        self.dim = dim


class LogSoftmax(Softmax):
    """The logarithm of Softmax along `dim`."""

    function = staticmethod(ops.log_softmax)
