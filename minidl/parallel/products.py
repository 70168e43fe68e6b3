"""Matrix products y = x weight^T split over workers: by rows, by columns, by the inner dimension, and by blocks.

What each rank holds of x (rows, in), weight (out, in) and y (rows, out), over p ranks or a grid of r × c, and what is
communicated of a layer's forward and backward:

    split     x              weight         y              forward                     backward
    rows      rows / p       whole          rows / p       nothing                     sums weight's gradient
    columns   whole          out / p        out / p        nothing                     sums x's gradient
    inner     in / p         in / p         whole          sums y                      nothing
    summa     blocks r × c   blocks c × r   blocks r × c   broadcasts panels of both   broadcasts panels, sums gradients

Columns and inner are Megatron's column-parallel and row-parallel layers, in layers.py.
"""

import math
from collections.abc import Iterable, Sequence

from minidl import ops
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel.conjugates import CollectiveOp, Gather, Replicate, Slice
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import RowParallelLinear, useful
from minidl.parallel.mesh import Grid, Mesh
from minidl.tensor import Tensor

Split = tuple[ProcessGroup | None, int]  # the group over which a dimension is split


class Summa(CollectiveOp):
    """y = x @ weight^T of matrices that lie in blocks on a grid of ranks (van de Geijn and Watts 1997, "SUMMA").

    Rank (i, j) of a grid of r × c has of x the rows i of r and the inputs j of c, of weight the outputs j of c and the
    inputs i of r, and gets of y the rows i and the outputs j. row, column: the groups of this rank's grid row and grid
    column. The inputs go by in lcm(r, c) panels: whoever has a panel of x broadcasts it along its grid row, whoever has
    that of weight along its grid column, and each rank adds up the products of what comes by.
    """

    splits_backward = True

    def __init__(self, row: ProcessGroup, column: ProcessGroup):
        self.row, self.column = row, column
        self.panels = math.lcm(row.size, column.size)

    def forward(self, x, weight):  # (..., in / c), (out / c, in / r)
        k, y = self.kernels, None
        self.x = x if self.needs[1] else None
        self.weight = weight if self.needs[0] else None
        for number in range(self.panels):
            product = k.linear(self._panel(x, self.row, number), self._panel(weight, self.column, number), None)
            if y is None:
                y = product
            else:
                k.accumulate(y, product)
        return y  # (..., out / c)

    def backward(self, grad):
        grad_x = self._input_gradient(grad) if self.needs[0] else None
        return grad_x, self._weight_gradient(grad) if self.needs[1] else None

    def _input_gradient(self, grad):
        """grad @ weight: each panel of weight comes by, and what the grid row finds with it is summed at its owner."""
        k = self.kernels
        return self._summed(
            self.row, (k.matmul(grad, self._panel(self.weight, self.column, number)) for number in range(self.panels))
        )

    def _weight_gradient(self, grad):
        """grad^T @ x: each panel of x comes by, and what the grid column finds with it is summed at its owner."""
        k, rows = self.kernels, math.prod(grad.shape[:-1])
        transposed = k.swap_last(k.reshape(grad, (rows, grad.shape[-1])))
        panels = (self._panel(self.x, self.row, number) for number in range(self.panels))
        return self._summed(
            self.column, (k.matmul(transposed, k.reshape(panel, (rows, panel.shape[-1]))) for panel in panels)
        )

    def _panel(self, block, group: ProcessGroup, number: int):
        """Panel `number` of the inputs, of which one rank of `group` has it in the last dimension of its `block`."""
        k, each = self.kernels, self.panels // group.size
        owner, place = divmod(number, each)
        width = block.shape[-1] // each
        if group.rank == owner:
            panel = k.slice_last(block, place * width, width)
            return group.broadcast(k.copy(panel), owner) if group.size > 1 else panel
        return group.broadcast(k.empty((*block.shape[:-1], width), block.dtype), owner)

    def _summed(self, group: ProcessGroup, parts: Iterable):
        """The sums over `group` of the panels that are this rank's, joined."""
        each, own = self.panels // group.size, []
        for number, part in enumerate(parts):
            owner = number // each
            if group.size > 1:
                part = group.reduce(part, owner)
            if group.rank == owner:
                own.append(part)
        return self.kernels.concatenate(own, -1) if len(own) > 1 else own[0]


class RowsLinear(Module):
    """Linear on this rank's share of the rows: every rank of `group` has the whole weight, and sums its gradient.

    The sum is part of its backward, as for the other products here. An nn.Linear that is marked by
    `layers.summed_over` has it once a step instead, beside other work. group: None or a group of one rank makes it a
    plain Linear.
    """

    def __init__(self, in_features: int, out_features: int, group: ProcessGroup | None = None, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        self.group = group
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter((out_features, in_features), init=recipe)
        self.bias = Parameter((out_features,), init=recipe) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (rows / size, ..., in)
        return ops.linear(x, _summing(self.weight, self.group), _summing(self.bias, self.group))

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, ranks={self.group.size if self.group else 1}"


class InnerLinear(RowParallelLinear):
    """Linear whose `in_features` are split over `group`: takes the whole input, returns the whole output."""

    def forward(self, x: Tensor) -> Tensor:  # (..., in)
        return super().forward(Slice(self.group, -1)(x) if self.group else x)


class SummaLinear(Module):
    """Linear on blocks of a grid of `rows` × `columns` of the mesh's tensor ranks: `Summa` says who has what.

    A rank takes its block (rows / `rows`, ..., in / `columns`) and returns one of the outputs that lies alike, so that
    layers follow one another; `Distribute` and `Collect` over `blocks_of` the grid lead there and back. The bias is
    split over the grid's columns. mesh: None for a grid of 1 × 1, which makes it a plain Linear. ValueError where the
    grid does not fit the mesh, or the sizes do not divide.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        mesh: Mesh | None = None,
        rows: int = 1,
        columns: int = 1,
        bias: bool = True,
    ):
        self.in_features, self.out_features, self.rows, self.columns = in_features, out_features, rows, columns
        for name, features, parts in (
            ("in_features", in_features, math.lcm(rows, columns)),
            ("out_features", out_features, columns),
        ):
            if features % parts:
                grid = f"tensor={rows * columns} is a grid of {rows} × {columns}"
                raise ValueError(f"SummaLinear: {name}={features} is not divisible by {parts}: {grid}")
        weight, biases = Cut((out_features, in_features)), Cut((out_features,))
        self.row, self.column = grid_groups(mesh, rows, columns)
        if self.row and self.column:
            outputs = {"index": self.row.rank, "count": columns, "axes": self.row.axes}
            weight = weight.split(0, **outputs).split(1, self.column.rank, rows, axes=self.column.axes)
            biases = biases.split(0, **outputs)
        recipe = init.fan_in_uniform(in_features)
        self.weight = Parameter(weight, init=recipe)
        self.bias = Parameter(biases, init=recipe) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.row is None:
            return ops.linear(x, self.weight, self.bias)
        y = Summa(self.row, self.column)(x, self.weight)
        return y if self.bias is None else y + _summing(self.bias, self.column)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, grid={self.rows} × {self.columns}"


class Distribute(Module):
    """Takes what every rank has whole to this rank's part: its slice over each group of `splits`, (group, dimension).

    What has parameters after it and knows nothing of the groups must be marked: `layers.summed_over(module, group)`.
    A group of None splits nothing. ValueError where a dimension does not divide.
    """

    def __init__(self, *splits: Split):
        self.splits = _useful_splits(splits)

    def forward(self, x: Tensor) -> Tensor:
        for group, dim in self.splits:
            x = Slice(group, dim)(x)
        return x


class Collect(Module):
    """Joins the parts that `Distribute` of the same splits makes: every rank has the whole again."""

    def __init__(self, *splits: Split):
        self.splits = _useful_splits(splits)

    def forward(self, x: Tensor) -> Tensor:
        for group, dim in reversed(self.splits):
            x = Gather(group, dim)(x)
        return x


def grid_groups(mesh: Mesh | None, rows: int, columns: int) -> tuple[ProcessGroup, ProcessGroup] | tuple[None, None]:
    """The groups of this rank's row, and of its column, in the grid of the tensor ranks; None for a grid of 1 × 1.

    ValueError where the grid does not fit.
    """
    mesh = mesh or Mesh({})
    along_columns, along_rows = (Grid("tensor", rows, columns, along) for along in ("columns", "rows"))
    mesh.grid_coordinates(along_rows)
    if rows * columns == 1:
        return None, None
    return mesh.group(along_columns), mesh.group(along_rows)  # those in a row are in different columns


def blocks_of(mesh: Mesh | None, rows: int, columns: int) -> tuple[Split, Split]:
    """How `SummaLinear` has x split: the first dimension over the grid's rows, the last over its columns."""
    row, column = grid_groups(mesh, rows, columns)
    return (column, 0), (row, -1)


def squarest(ranks: int) -> tuple[int, int]:
    """The rows and the columns of the grid of so many ranks that is most nearly a square, and not higher than wide."""
    rows = max(rows for rows in range(1, math.isqrt(ranks) + 1) if ranks % rows == 0)
    return rows, ranks // rows


def _summing(parameter: Parameter | None, group: ProcessGroup | None) -> Tensor | None:
    """The parameter, whose gradient is summed over the group."""
    if parameter is None or group is None or group.size == 1:
        return parameter
    return Replicate(group)(parameter)


def _useful_splits(splits: Sequence[Split]) -> tuple[Split, ...]:
    return tuple((group, dim) for group, dim in splits if useful(group))
