"""Layers split over a group (Shoeybi et al. 2019, "Megatron-LM", section 3), written on collectives.

A column-parallel layer followed by a row-parallel one needs one all-reduce forward and one backward for the pair: the
first splits the outputs and leaves them split, the second takes them split and sums what its ranks find. Where the
sequence is split between the pairs (Korthikanti et al. 2022, section 4.2.2), an all-gather before the pair and a
reduce-scatter after it take the place of the all-reduce.
"""

from minidl import nn, ops, random
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.ops.embedding import Embedding
from minidl.ops.matmul import Linear
from minidl.parallel.conjugates import (
    CollectiveOp,
    Gather,
    all_gather,
    all_gather_meanwhile,
    reduce_scatter,
    reduce_scatter_meanwhile,
)
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor

SEQUENCE = 1  # the dimension of (batch, sequence, features) that is split between the layers


class ColumnLinear(CollectiveOp, Linear):
    """y[..., out / size] of x, which every rank has whole or, if `by_sequence`, its slice (batch, sequence / size, in).

    Backward sums the ranks' gradients of x, or scatters the sum, while it computes the weight's. Of a gathered x the
    slice alone is kept: backward gathers it again.
    """

    def __init__(self, group: ProcessGroup, by_sequence: bool):
        super().__init__(group)
        self.by_sequence = by_sequence

    def forward(self, x, weight, bias=None):
        whole = all_gather(self.kernels, self.group, x, SEQUENCE) if self.by_sequence else x
        y = Linear.forward(self, whole, weight, bias)
        self.x = x if self.needs[1] else None
        return y

    def backward(self, grad):  # (..., out / size)
        k, x = self.kernels, lambda: self.x
        grad_x = grad_weight = None
        if self.needs[1] and self.by_sequence:
            x = all_gather_meanwhile(k, self.group, self.x, SEQUENCE)
        if self.needs[0]:
            grad_x = self._summed_meanwhile(self.input_gradient(grad))
        if self.needs[1]:
            grad_weight = self.weight_gradient(grad, x())
        bias = [self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]
        return grad_x and grad_x(), grad_weight, *bias

    def _summed_meanwhile(self, grad_x):
        """Begin to sum the ranks' parts of the gradient of x; a function that waits and gives this rank its own."""
        if self.by_sequence:
            return reduce_scatter_meanwhile(self.kernels, self.group, grad_x, SEQUENCE)
        return self.group.all_reduce(grad_x, async_op=True).wait


class RowLinear(CollectiveOp, Linear):
    """y[..., out] of this rank's slice of x (..., in / size): the sum over the group, to which the bias is added once.

    by_sequence: each rank gets its slice (batch, sequence / size, out) of the sum alone. The gradient of the bias is
    then that of the slice.
    """

    def __init__(self, group: ProcessGroup, by_sequence: bool):
        super().__init__(group)
        self.by_sequence = by_sequence
        self.splits_backward = not by_sequence  # else each half of backward would gather the gradient

    def forward(self, x, weight, bias=None):
        k = self.kernels
        y = Linear.forward(self, x, weight)
        y = reduce_scatter(k, self.group, y, SEQUENCE) if self.by_sequence else self.group.all_reduce(y)
        if bias is not None:
            k.accumulate(y, bias)
        return y

    def backward(self, grad):
        bias = [self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]
        if self.by_sequence and any(self.needs[:2]):
            grad = all_gather(self.kernels, self.group, grad, SEQUENCE)
        grad_x = self.input_gradient(grad) if self.needs[0] else None
        return grad_x, self.weight_gradient(grad, self.x) if self.needs[1] else None, *bias


class VocabularyEmbedding(CollectiveOp, Embedding):
    """Rows of a table of which each rank has a slice (rows / size, width): the sum of what the ranks have of them.

    A rank has zeros where another one has the row. by_sequence: each gets its slice (batch, sequence / size, width) of
    the sum alone.
    """

    def __init__(self, group: ProcessGroup, by_sequence: bool):
        super().__init__(group)
        self.padding, self.by_sequence = None, by_sequence

    def forward(self, indices, weight):
        k, rows = self.kernels, weight.shape[0]
        k.check_indices("embedding", indices, rows * self.group.size)
        local = k.subtract(indices, self.group.rank * rows)
        here = k.logical_and(k.greater_equal(local, 0), k.less(local, rows))
        self.here = k.reshape(here, (*indices.shape, 1))
        found = k.masked(Embedding.forward(self, k.where(here, local, 0), weight), self.here)
        return reduce_scatter(k, self.group, found, SEQUENCE) if self.by_sequence else self.group.all_reduce(found)

    def backward(self, grad):
        k = self.kernels
        if self.by_sequence:
            grad = all_gather(k, self.group, grad, SEQUENCE)
        return Embedding.backward(self, k.masked(grad, self.here))


class SequenceParallelDropout(nn.Dropout):
    """Dropout of this rank's slice (batch, sequence / size, …): its slice of the mask for the whole sequence."""

    def __init__(self, p: float, group: ProcessGroup):
        super().__init__(p)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        with random.slice_of_sequence(self.group.rank, self.group.size, x.shape[SEQUENCE]):
            return super().forward(x)


class ColumnParallelLinear(Module):
    """Linear whose `out_features` are split over `group`: the output is this rank's slice, whole if `gather_output`.

    class_group: over which the outputs are split, None where every rank gets them all: a loss needs to know it.
    group: None or a group of one rank makes it a plain Linear. parts: the outputs are that many equal matrices one
    after the other (3 for query, key and value), each of which is split. sequence_parallel: the input is this rank's
    slice (batch, sequence / size, in_features) of the sequence. ValueError where the sizes do not divide.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group: ProcessGroup | None = None,
        bias: bool = True,
        parts: int = 1,
        gather_output: bool = False,
        sequence_parallel: bool = False,
    ):
        self.in_features, self.out_features, self.gather_output = in_features, out_features, gather_output
        self.group, self.sequence_parallel = useful(group), sequence_parallel
        self.class_group = None if gather_output else self.group
        check_divisible("ColumnParallelLinear", "out_features", out_features, self.group, parts)
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter(cut((out_features, in_features), 0, self.group, parts), init=recipe)
        self.bias = Parameter(cut((out_features,), 0, self.group, parts), init=recipe) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            return ops.linear(x, self.weight, self.bias)
        y = ColumnLinear(self.group, self.sequence_parallel)(x, *_given(self.weight, self.bias))  # (..., out / size)
        return Gather(self.group, -1)(y) if self.gather_output else y

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, ranks={self.group.size if self.group else 1}"


class RowParallelLinear(Module):
    """Linear whose `in_features` are split over `group`: takes this rank's slice, returns the whole output.

    The bias is added once, after the sum. sequence_parallel: returns this rank's slice (batch, sequence / size,
    out_features) of the sequence. ValueError where the sizes do not divide.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group: ProcessGroup | None = None,
        bias: bool = True,
        sequence_parallel: bool = False,
    ):
        self.in_features, self.out_features = in_features, out_features
        self.group, self.sequence_parallel = useful(group), sequence_parallel
        check_divisible("RowParallelLinear", "in_features", in_features, self.group)
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter(cut((out_features, in_features), 1, self.group), init=recipe)
        self.bias = Parameter((out_features,), init=recipe) if bias else None
        if self.group and sequence_parallel and bias:
            self.bias.summed_over = self.group.axes

    def forward(self, x: Tensor) -> Tensor:  # (..., in / size)
        if self.group is None:
            return ops.linear(x, self.weight, self.bias)
        return RowLinear(self.group, self.sequence_parallel)(x, *_given(self.weight, self.bias))

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, ranks={self.group.size if self.group else 1}"


class VocabularyParallelEmbedding(Module):
    """Embedding whose rows are split over `group`: each rank looks up those that it has, and the sum has all.

    std: of the rows at the start. sequence_parallel: each rank gets its slice (batch, sequence / size, width) of the
    sum. ValueError where the rows do not divide.
    """

    def __init__(
        self, rows: int, width: int, group: ProcessGroup | None = None, std: float = 1.0, sequence_parallel=False
    ):
        self.group, self.sequence_parallel, self.rows, self.width = useful(group), sequence_parallel, rows, width
        check_divisible("VocabularyParallelEmbedding", "rows", rows, self.group)
        self.weight = Parameter(cut((rows, width), 0, self.group), init=init.normal(std=std))

    def forward(self, indices: Tensor) -> Tensor:
        if self.group is None:
            return ops.embedding(indices, self.weight)
        if self.sequence_parallel:
            check_divisible(type(self).__name__, "sequence", indices.shape[SEQUENCE], self.group)
        return VocabularyEmbedding(self.group, self.sequence_parallel)(indices, self.weight)

    def extra_repr(self):
        return f"{self.rows}, {self.width}, ranks={self.group.size if self.group else 1}"


def summed_over(module: nn.Module, group: ProcessGroup | None) -> nn.Module:
    """`module`, whose parameters each rank of the group uses on a part of the data: their gradients are summed."""
    for p in module.parameters() if useful(group) else ():
        p.summed_over = group.axes
    return module


def useful(group: ProcessGroup | None) -> ProcessGroup | None:
    """The group, or None if it has one rank alone: then there is nothing to split."""
    return group if group is not None and group.size > 1 else None


def cut(shape: tuple[int, ...], dim: int, group: ProcessGroup | None, parts: int = 1) -> Cut:
    """The part of a parameter that this rank has where dimension `dim` is split over the group."""
    return Cut(shape).split(dim, group.rank, group.size, parts, axes=group.axes) if group else Cut(shape)


def check_divisible(layer: str, name: str, features: int, group: ProcessGroup | None, parts: int = 1) -> None:
    """ValueError, which names the layer and the axis, unless `features` can be split."""
    if group is not None and features % (parts * group.size):
        what = f"{group}" + (f" × {parts} parts" if parts > 1 else "")
        raise ValueError(f"{layer}: {name}={features} is not divisible by {what}")


def _given(*tensors: Tensor | None) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]
