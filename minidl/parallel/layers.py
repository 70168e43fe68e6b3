"""Linear layers split over a group (Shoeybi et al. 2019, "Megatron-LM", section 3), written on collectives.

A column-parallel layer followed by a row-parallel one needs one all-reduce forward and one backward for the pair: the
first splits the outputs and leaves them split, the second takes them split and sums what its ranks find.
"""

from minidl import ops
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Op, Tensor


class AllReduce(Op):
    """Forward: the sum over the group. Backward: the gradient as it is, which every rank has whole."""

    passes_gradient = True

    def __init__(self, group: ProcessGroup):
        self.group = group

    def forward(self, x):
        return self.group.all_reduce(self.kernels.copy(x))

    def backward(self, grad):
        return grad


class Replicate(Op):
    """Forward: the input as it is, which every rank has whole. Backward: the sum of the ranks' gradients."""

    def __init__(self, group: ProcessGroup):
        self.group = group

    def forward(self, x):
        return x

    def backward(self, grad):
        return self.group.all_reduce(self.kernels.copy(grad))


class GatherLast(Op):
    """Forward: the ranks' slices of the last dimension, joined. Backward: this rank's slice of the gradient."""

    def __init__(self, group: ProcessGroup):
        self.group = group

    def forward(self, x):  # (..., n / size)
        k, size = self.kernels, self.group.size
        self.shape = x.shape
        gathered = self.group.all_gather(k.reshape(x, (1, *x.shape)))  # (size, ..., n / size)
        moved = k.permute(gathered, (*range(1, len(x.shape)), 0, len(x.shape)))
        return k.reshape(k.copy(moved), (*x.shape[:-1], size * x.shape[-1]))

    def backward(self, grad):  # (..., n)
        n = self.shape[-1]
        return self.kernels.copy(self.kernels.slice_last(grad, self.group.rank * n, n))


class ColumnParallelLinear(Module):
    """Linear whose `out_features` are split over `group`: the output is this rank's slice, whole if `gather_output`.

    group: None or a group of one rank makes it a plain Linear. parts: the outputs are that many equal matrices one
    after the other (3 for query, key and value), each of which is split. ValueError where the sizes do not divide.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group: ProcessGroup | None = None,
        bias: bool = True,
        parts: int = 1,
        gather_output: bool = False,
    ):
        self.in_features, self.out_features, self.gather_output = in_features, out_features, gather_output
        self.group = _useful(group)
        _check_divisible("out_features", out_features, self.group, parts)
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter(_split((out_features, in_features), 0, self.group, parts), init=recipe)
        self.bias = Parameter(_split((out_features,), 0, self.group, parts), init=recipe) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            return ops.linear(x, self.weight, self.bias)
        y = ops.linear(Replicate(self.group)(x), self.weight, self.bias)  # (..., out / size)
        return GatherLast(self.group)(y) if self.gather_output else y

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, ranks={self.group.size if self.group else 1}"


class RowParallelLinear(Module):
    """Linear whose `in_features` are split over `group`: takes this rank's slice, returns the whole output.

    The bias is added once, after the sum. ValueError where the sizes do not divide.
    """

    def __init__(self, in_features: int, out_features: int, group: ProcessGroup | None = None, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        self.group = _useful(group)
        _check_divisible("in_features", in_features, self.group)
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter(_split((out_features, in_features), 1, self.group), init=recipe)
        self.bias = Parameter((out_features,), init=recipe) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (..., in / size)
        if self.group is None:
            return ops.linear(x, self.weight, self.bias)
        y = AllReduce(self.group)(ops.linear(x, self.weight))
        return y if self.bias is None else y + self.bias

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, ranks={self.group.size if self.group else 1}"


def _useful(group: ProcessGroup | None) -> ProcessGroup | None:
    return group if group is not None and group.size > 1 else None


def _split(shape: tuple[int, ...], dim: int, group: ProcessGroup | None, parts: int = 1) -> Cut:
    return Cut(shape).split(dim, group.rank, group.size, parts) if group else Cut(shape)


def _check_divisible(name: str, features: int, group: ProcessGroup | None, parts: int = 1) -> None:
    size = group.size if group else 1
    if features % (parts * size):
        what = f"tensor={size}" + (f" × {parts} parts" if parts > 1 else "")
        raise ValueError(f"{name}={features} is not divisible by {what}")
