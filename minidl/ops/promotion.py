"""Operands of different dtypes, and numbers beside tensors: what dtype the result has, by PyTorch's rules.

bool < int64 < float32 < float64, and the largest wins; but a tensor without dimensions, and a number still less, counts
beside a tensor with dimensions only where its kind (bool, int, float) is the larger.
"""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from minidl.dtypes import bool_, float32, float64, int64
from minidl.op import mixed_inputs
from minidl.ops.shape import cast
from minidl.tensor import Tensor

RANKS = {dtype: rank for rank, dtype in enumerate((bool_, int64, float32, float64))}
KINDS = "bif"


def result_type(*tensors: Tensor) -> np.dtype:
    """The dtype to which an operation brings these tensors."""
    large = [x.dtype for x in tensors if x.shape]
    small = [x.dtype for x in tensors if not x.shape]
    if not large or not small:
        return max(large or small, key=RANKS.__getitem__)
    first, second = max(large, key=RANKS.__getitem__), max(small, key=RANKS.__getitem__)
    return second if KINDS.index(second.kind) > KINDS.index(first.kind) else first


def promoted(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, all of the dtype that `result_type` finds."""
    dtype = result_type(*tensors)
    return [cast(x, dtype) for x in tensors]


def floating(x: Tensor) -> Tensor:
    """x, or its float32 if it has integers or bools."""
    return x if x.data.dtype.kind == "f" else cast(x, float32)


def check_floats(name: str, x: Tensor) -> None:
    """TypeError if x has no floats."""
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floats, the tensor has dtype {x.dtype}: convert with .to(minidl.float32)")


def pair(name: str, a, b) -> tuple[Tensor, Tensor]:
    """Both operands of the operation `name` as tensors of one dtype; one of them may be a number.

    ValueError: the shapes do not broadcast. TypeError: one is neither a tensor nor a number.
    """
    if not isinstance(a, Tensor):
        b, a = _beside(name, b, a)
        return a, b
    if not isinstance(b, Tensor):
        return _beside(name, a, b)
    x, y = a.data, b.data
    if x.dtype is not y.dtype:
        a, b = promoted((a, b))
    if x.shape != y.shape:
        try:
            np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            raise ValueError(f"{name}: shapes {x.shape} and {y.shape} do not broadcast") from None
    return a, b


def _beside(name: str, x: Tensor, number) -> tuple[Tensor, Tensor]:
    """x and the number in x's dtype, or both in int64 or float32 where the number is of a larger kind."""
    if type(number) is not float and not isinstance(number, Real | np.bool_):
        raise TypeError(f"{name} of a tensor and a {type(number).__name__}: make it a tensor with minidl.tensor(...)")
    if x.data.dtype.kind != "f":
        kind = "b" if isinstance(number, bool | np.bool_) else "i" if isinstance(number, Integral) else "f"
        if KINDS.index(kind) > KINDS.index(x.dtype.kind):
            x = cast(x, float32 if kind == "f" else int64)
    return x, Tensor(x.kernels.array(number, x.data.dtype))


def one_device(name: str, *tensors: Tensor):
    """The kernels of the device on which all the tensors are; ValueError if they are on several."""
    if len({type(x.data) for x in tensors}) > 1:
        raise mixed_inputs(name, tensors)
    return tensors[0].kernels
