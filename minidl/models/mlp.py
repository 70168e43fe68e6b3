"""A multi-layer perceptron."""

from collections.abc import Sequence

from minidl import nn
from minidl.models.examples import images
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear


def mlp(sizes: Sequence[int] = (64, 128, 10), mesh=None) -> nn.Sequential:
    """Flatten, then linear layers between `sizes` with ReLU between them.

    Over the mesh's tensor axis a column-parallel layer and a row-parallel one take turns, the ReLU between them acting
    on the shard; a last layer left over is not split. ValueError: fewer than two sizes, or one that is not divisible.
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes={tuple(sizes)}, it needs an input and an output size at least")
    group = mesh.group("tensor") if mesh else None
    layers = len(sizes) - 1
    blocks: list[nn.Module] = [nn.Flatten()]
    for i in range(layers):
        if i % 2 == 1:
            blocks.append(RowParallelLinear(sizes[i], sizes[i + 1], group))
        elif i == layers - 1:
            blocks.append(nn.Linear(sizes[i], sizes[i + 1]))
        else:
            blocks.append(ColumnParallelLinear(sizes[i], sizes[i + 1], group))
        if i < layers - 1:
            blocks.append(nn.ReLU())
    model = nn.Sequential(*blocks)
    side = round(sizes[0] ** 0.5)
    model.example = images((1, side, side) if side * side == sizes[0] else (sizes[0],), sizes[-1])
    return model
