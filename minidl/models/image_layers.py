"""The layers of a small convolutional network, made one after the other and split over a mesh in one of four ways."""

from itertools import pairwise

from minidl import nn
from minidl.parallel.convolution import (
    BatchParallelConv2d,
    ColumnParallelConv2d,
    GatherBatch,
    GatherChannels,
    RowParallelConv2d,
)
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear, useful
from minidl.parallel.mesh import Mesh
from minidl.parallel.spatial import GatherRows, SpatialConv2d, SpatialMaxPool2d

SPLITS = ("batch", "output", "input", "space")


class ImageLayers:
    """Makes each layer for what the one before gives, beginning with images (batch, channels, size, size).

    Without a mesh, or with tensor=1, they are plain. Else the tensor ranks share the convolutions by `split`: "batch":
    each has some of the samples. "space": some rows of every image. "output": some channels of a convolution's result,
    which are gathered after pooling, before the next needs them all. "input": some channels of what a convolution
    takes, and of the sum the channels that it needs for the next; one whose channels do not divide, as three colours,
    is not split. Whatever the split, blocks and parameters are the same. ValueError for an unknown split, and for
    channels or rows that cannot be shared.
    """

    def __init__(self, mesh: Mesh | None, split: str, channels: int, size: int):
        if split not in SPLITS:
            raise ValueError(f"a convolutional network has no split {split!r}: choose one of {', '.join(SPLITS)}")
        self.group, self.split = useful(mesh.group("tensor") if mesh else None), split
        self.channels, self.rows = channels, size
        self.whole = True  # whether every rank has all samples, rows and channels of what the next layer takes

    def convolution(self, channels: int, kernel_size: int, padding: int = 0, pool: int = 1) -> nn.Module:
        """pool: windows of how many rows and columns a `max_pool` has that follows."""
        sizes, rows, group, whole = (self.channels, channels, kernel_size), self.rows, self.group, self.whole
        self.channels, self.rows = channels, rows + 2 * padding - kernel_size + 1
        if group is None or (self.split == "input" and sizes[0] % group.size):
            return nn.Conv2d(*sizes, padding=padding)
        self.whole = self.split == "output" and not whole
        if self.split == "space":
            return SpatialConv2d(*sizes, rows, group, padding=padding, whole_input=whole, pool=pool)
        if self.split == "batch":
            return BatchParallelConv2d(*sizes, group, padding=padding, whole_input=whole)
        if self.split == "input":
            return RowParallelConv2d(*sizes, group, padding=padding, scatter_output=True, whole_input=whole)
        return (ColumnParallelConv2d if whole else RowParallelConv2d)(*sizes, group, padding=padding)

    def max_pool(self, kernel_size: int) -> nn.Module:
        rows, self.rows = self.rows, self.rows // kernel_size
        if self.group and self.split == "space" and not self.whole:
            return SpatialMaxPool2d(kernel_size, rows - rows % kernel_size, self.group, uncut=True)
        pool = nn.MaxPool2d(kernel_size)
        if self.split != "output" or self.whole:
            return pool
        self.whole = True
        return nn.Sequential(pool, GatherChannels(self.group))

    def flatten(self) -> nn.Module:
        """Of split images the rows and samples are gathered; the features of a rank's channels stay split."""
        gather = {"space": GatherRows(self.rows, self.group), "batch": GatherBatch(self.group)}.get(self.split)
        if self.whole or gather is None:
            return nn.Flatten()
        self.whole = True
        return nn.Sequential(gather, nn.Flatten())

    def dense(self, *sizes: int) -> list[nn.Module]:
        """Linear layers of these output sizes after `flatten`, in pairs of a column-parallel and a row-parallel one.

        What does not divide, and a last one without its pair, is not split.
        """
        group, layers = self.group, []
        for place, pair in enumerate(pairwise((self.channels * self.rows**2, *sizes))):
            if not self.whole:
                layers.append(RowParallelLinear(*pair, group))
                self.whole = True
            elif group is None or place == len(sizes) - 1 or pair[1] % group.size:
                layers.append(nn.Linear(*pair))
            else:
                layers.append(ColumnParallelLinear(*pair, group))
                self.whole = False
        return layers
