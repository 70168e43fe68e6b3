"""Dropout."""

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.arithmetic import multiply
from minidl.ops.shape import cast
from minidl.tensor import Tensor


class Dropout(Op):
    """Zero a random fraction p of the elements and divide the rest by 1 - p (Srivastava et al. 2014)."""

    def __init__(self, p: float):
        self.p = p

    def forward(self, x):
        y, mask = self.kernels.dropout(x, self.p)
        self.mask = mask if self.needs[0] else None
        return y

    def backward(self, grad):
        return self.kernels.dropout_grad(grad, self.mask, self.p)


@tensor_kernel
def dropout_grad(grad, mask, p):
    return multiply(multiply(grad, cast(mask, grad.dtype)), 1 / (1 - p))


def check_fraction(p: float) -> None:
    """ValueError unless p is a fraction that dropout can zero."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p={p}, it must be at least 0 and below 1")


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero a random fraction p of x and divide the rest by 1 - p; x itself unless `training`.

    Inside `random.scope` the mask is keyed by (seed, step, sample, layer), the first dimension of x being the samples.
    """
    check_fraction(p)
    return Dropout(p)(x) if training and p else x


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout of whole channels of images (batch, channels, height, width) (Tompson et al. 2015)."""
    check_fraction(p)
    if x.ndim != 4:
        raise ValueError(f"dropout2d needs images (batch, channels, height, width), not shape {x.shape}")
    channels = Tensor(x.kernels.full((*x.shape[:2], 1, 1), 1, x.dtype))
    return multiply(x, dropout(channels, p)) if training and p else x
