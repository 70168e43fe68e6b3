"""Softmax and the losses of classification."""

from minidl.ops.arithmetic import multiply, subtract
from minidl.ops.elementwise import exp
from minidl.ops.reduction import sum
from minidl.ops.shape import normalize_dim, reshape
from minidl.ops.taped import taped
from minidl.tensor import Op, Tensor


class Softmax(Op):
    """exp(x) / sum(exp(x)) along `dim`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        self.y = self.kernels.softmax(x, self.dim)
        return self.y

    def backward(self, grad):
        return self.kernels.softmax_grad(grad, self.y, self.dim)


@taped
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


@taped
def log_softmax_grad(grad, y, dim):
    return subtract(grad, multiply(exp(y), sum(grad, dim, True)))


class CrossEntropy(Op):
    """The sum over rows of -log softmax(logits)[target]."""

    one_dtype = False

    def forward(self, logits, target):  # (rows, classes), (rows,)
        loss, probabilities = self.kernels.cross_entropy(logits, target)
        if self.needs[0]:
            self.probabilities, self.target = probabilities, target
        return loss

    def backward(self, grad):
        return self.kernels.cross_entropy_grad(grad, self.probabilities, self.target), None


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`."""
    return Softmax(normalize_dim(dim, x.shape))(x)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """The logarithm of softmax(x, dim), without its overflow."""
    return LogSoftmax(normalize_dim(dim, x.shape))(x)


def cross_entropy(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[target], summed or averaged over the targets.

    logits (..., classes): the classes come last, unlike PyTorch's (batch, classes, ...); target (...) of int64.
    reduction: "mean" or "sum". ValueError: a target is no class, or the shapes do not match.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f'cross_entropy: reduction={reduction!r}, it must be "mean" or "sum"')
    if logits.ndim < 1 or logits.shape[:-1] != target.shape:
        needed = logits.shape[:-1]
        raise ValueError(f"cross_entropy: logits {logits.shape} need targets {needed}, not {target.shape}")
    if target.dtype.kind != "i":
        raise TypeError(f"cross_entropy: targets are class indices of dtype int64, not {target.dtype}")
    rows = target.numel()
    total = CrossEntropy()(reshape(logits, (rows, logits.shape[-1])), reshape(target, (rows,)))
    return total if reduction == "sum" else total / rows
