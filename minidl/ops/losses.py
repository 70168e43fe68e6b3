"""What losses are made of, where a chain of simpler ops would overflow, or be slow."""

from minidl.creation import arange, ones
from minidl.double_backward import tensor_kernel
from minidl.mutation import tick
from minidl.op import Op
from minidl.ops.arithmetic import multiply, subtract
from minidl.ops.choice import where
from minidl.ops.comparison import eq, ne
from minidl.ops.shape import cast, reshape, unsqueeze
from minidl.ops.softmax import Softmax
from minidl.tensor import Tensor

IGNORE_INDEX = -100  # PyTorch's default for targets that do not count


class CrossEntropy(Op):
    """The sum over rows of -log softmax(logits)[target]."""

    one_dtype = False

    def __init__(self, ignore_index: int):
        self.ignore_index = ignore_index

    def forward(self, logits, target):  # (rows, classes), (rows,)
        loss, probabilities = self.kernels.cross_entropy(logits, target, self.ignore_index)
        if self.needs[0]:
            self.probabilities, self.target = probabilities, target
        return loss

    def backward(self, grad):
        k, reuse = self.kernels, not self.retained
        return k.cross_entropy_grad(grad, self.probabilities, self.target, self.ignore_index, reuse), None

    def recompute_saved(self):
        """The probabilities are the softmax of the logits, which are not kept: the tape knows the op that made them."""
        softmax = Softmax(1)
        softmax.kernels, softmax.y = self.probabilities.kernels, self.probabilities.data
        softmax.needs = softmax.parents = self.parents[:1]
        softmax.order = -tick()
        self.probabilities = Tensor(softmax.y)
        self.probabilities.node = softmax


@tensor_kernel
def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    each = ones(target.shape, dtype=grad.dtype, device=grad.device)
    one_hot = pick_grad(each, target, probabilities.shape[1], ignore_index)
    kept = cast(unsqueeze(ne(target, ignore_index), 1), grad.dtype)
    return multiply(grad, subtract(multiply(probabilities, kept), one_hot))


class Pick(Op):
    """x[row, target[row]] of each row, 0 where the target is `ignore_index`."""

    one_dtype = False

    def __init__(self, ignore_index: int):
        self.ignore_index = ignore_index

    def forward(self, x, target):  # (rows, classes), (rows,)
        self.classes, self.target = x.shape[1], target
        return self.kernels.pick(x, target, self.ignore_index)

    def backward(self, grad):
        return self.kernels.pick_grad(grad, self.target, self.classes, self.ignore_index), None


@tensor_kernel
def pick_grad(grad, target, classes, ignore_index):
    """A product with the rows' one-hot targets."""
    places = eq(unsqueeze(target, 1), arange(classes, device=target.device))  # (rows, classes)
    chosen = where(unsqueeze(ne(target, ignore_index), 1), cast(places, grad.dtype), 0.0)
    return multiply(unsqueeze(grad, 1), chosen)


class BinaryCrossEntropy(Op):
    """-(target log p + (1 - target) log(1 - p)), elementwise."""

    def forward(self, probability, target):
        self.probability, self.target = probability, target
        return self.kernels.binary_cross_entropy(probability, target)

    def backward(self, grad):
        k, p, y = self.kernels, self.probability, self.target
        grad_p = grad_y = None
        if self.needs[0]:  # d/dp = (p - y) / (p (1 - p)), the denominator at least 1e-12, as in PyTorch
            slope = k.divide(k.subtract(p, y), k.maximum(k.multiply(p, k.subtract(1, p)), 1e-12))
            grad_p = k.multiply(grad, slope)
        if self.needs[1]:  # d/dy = log((1 - p) / p)
            grad_y = k.multiply(grad, k.log(k.divide(k.subtract(1, p), p)))
        return grad_p, grad_y


def cross_entropy_sum(logits: Tensor, target: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """The sum over targets of -log softmax(logits)[target], in one kernel: `cross_entropy` without its options.

    logits (..., classes), target (...) of int64. ValueError: a target is neither a class nor `ignore_index`, or the
    shapes do not match.
    """
    return CrossEntropy(ignore_index)(*rows_of("cross_entropy", logits, target))


def pick(x: Tensor, target: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """x (..., classes) at the class that target (...) names: (...); 0 where the target is `ignore_index`.

    ValueError: a target is neither a class nor `ignore_index`, or the shapes do not match.
    """
    return reshape(Pick(ignore_index)(*rows_of("pick", x, target)), target.shape)


def rows_of(name: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """x as (rows, classes), target as (rows,)."""
    if x.ndim < 1 or x.shape[:-1] != target.shape:
        raise ValueError(f"{name}: scores {x.shape} need targets {x.shape[:-1]}, not {target.shape}")
    if target.dtype.kind != "i":
        raise TypeError(f"{name}: targets are class indices of dtype int64, not {target.dtype}")
    rows = target.numel()
    return reshape(x, (rows, x.shape[-1])), reshape(target, (rows,))


def binary_cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """-(target log p + (1 - target) log(1 - p)), elementwise, no logarithm taken for less than -100.

    probability and target of one shape. ValueError if a probability is not within [0, 1].
    """
    return BinaryCrossEntropy()(probability, target)
