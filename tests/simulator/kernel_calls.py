"""Kernel calls to be priced: as they are noted on meta, and made up."""

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray


def product(batch, m, n, k, dtype="float32", layout="NN", accumulates=False):
    flops, read, written = 2 * batch * m * n * k, 4 * batch * (m * k + k * n), 4 * batch * m * n
    return KernelCall("matmul", "product", ((batch, m, n, k),), dtype, flops, read, written, (layout, accumulates))


def elementwise(name="add", nbytes=1200, flops=100, dtype="float32", kind="elementwise"):
    return KernelCall(name, kind, ((nbytes // 12,),), dtype, flops, nbytes * 2 // 3, nbytes // 3)


def options(stride=1, padding=0, groups=1, dilation=1):
    """As a convolution's call has them."""
    return (stride, stride), (padding, padding), (dilation, dilation), groups


def calls(x, weight, dtype="float32", chosen=None, bias=False):
    """The three calls of a convolution of images `x` and its gradients: forward, of the input, of the weight."""
    chosen = chosen or options()
    x, weight = MetaArray(x, dtype), MetaArray(weight, dtype)
    with meta.record() as found:
        y = meta.conv2d(x, weight, MetaArray(weight.shape[:1], dtype) if bias else None, *chosen)
        meta.conv2d_grad_input(y, weight, x.shape, *chosen)
        meta.conv2d_grad_weight(y, x, weight.shape, *chosen)
    return found
