"""A multi-layer perceptron, whose matrix products the tensor ranks of a mesh can share in several ways."""

from collections.abc import Sequence
from itertools import pairwise

from minidl import nn
from minidl.models.examples import images
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear
from minidl.parallel.mesh import Mesh
from minidl.parallel.products import Collect, Distribute, InnerLinear, RowsLinear, SummaLinear, blocks_of, squarest

SPLITS = ("column-row", "rows", "columns", "inner", "summa")


def mlp(sizes: Sequence[int] = (64, 128, 10), mesh: Mesh | None = None, split: str = "column-row") -> nn.Sequential:
    """Flatten, then linear layers between `sizes` with ReLU between them.

    split: how the mesh's tensor ranks share the products. "column-row": a column-parallel layer and a row-parallel one
    take turns, the ReLU between them acting on the shard; a last layer left over is not split. "rows": each has its
    share of the samples. "columns": of each layer's outputs, which are gathered. "inner": of each layer's inputs, and
    what they make of them is summed. "summa": a block of every matrix, on the squarest grid. ValueError: fewer than two
    sizes, one that is not divisible, or an unknown split.
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes={tuple(sizes)}, it needs an input and an output size at least")
    if split not in SPLITS:
        raise ValueError(f"mlp: unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    entry, layers, exit = _layers(list(pairwise(sizes)), mesh, split)
    blocks: list[nn.Module] = [nn.Sequential(nn.Flatten(), entry) if entry else nn.Flatten()]
    for i, layer in enumerate(layers):
        blocks += [nn.ReLU(), layer] if i else [layer]
    model = nn.Sequential(*blocks, *([exit] if exit else []))
    side = round(sizes[0] ** 0.5)
    model.example = images((1, side, side) if side * side == sizes[0] else (sizes[0],), sizes[-1])
    return model


def _layers(
    pairs: list[tuple[int, int]], mesh: Mesh | None, split: str
) -> tuple[nn.Module | None, list[nn.Module], nn.Module | None]:
    """The linear layers, and what leads to them and away from them."""
    if split == "summa":
        grid = squarest(mesh.size("tensor")) if mesh else (1, 1)
        splits = blocks_of(mesh, *grid)
        return Distribute(*splits), [SummaLinear(*pair, mesh, *grid) for pair in pairs], Collect(*splits)
    group = mesh.group("tensor") if mesh else None
    if split == "rows":
        return Distribute((group, 0)), [RowsLinear(*pair, group) for pair in pairs], Collect((group, 0))
    if split == "columns":
        return None, [ColumnParallelLinear(*pair, group, gather_output=True) for pair in pairs], None
    if split == "inner":
        return None, [InnerLinear(*pair, group) for pair in pairs], None
    layers: list[nn.Module] = []
    for i, pair in enumerate(pairs):
        if i % 2 == 1:
            layers.append(RowParallelLinear(*pair, group))
        elif i == len(pairs) - 1:
            layers.append(nn.Linear(*pair))
        else:
            layers.append(ColumnParallelLinear(*pair, group))
    return None, layers, None
