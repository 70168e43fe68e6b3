"""Inception-v3 (Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2016, "Rethinking the Inception Architecture")."""

from minidl import nn, ops
from minidl.models.examples import images


class Branches(nn.Module):
    """What every branch makes of the same input, joined along the channels."""

    def __init__(self, *branches: nn.Module):
        for i, branch in enumerate(branches):
            setattr(self, str(i), branch)

    def forward(self, x):
        return ops.cat([branch(x) for _, branch in self.named_children()], 1)


def convolution(channels: int, out_channels: int, kernel, stride: int = 1, padding=0) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU; it starts as in He et al. 2015."""
    layer = nn.Conv2d(channels, out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels, eps=0.001), nn.ReLU())


def chain(channels: int, *steps) -> nn.Sequential:
    """Convolutions one after the other, each given as (out_channels, kernel), its size kept by padding."""
    layers = []
    for out_channels, kernel in steps:
        padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
        layers.append(convolution(channels, out_channels, kernel, padding=padding))
        channels = out_channels
    return nn.Sequential(*layers)


def pooled(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), convolution(channels, out_channels, 1))


def mixed35(channels: int, pool: int, c: int) -> Branches:
    """At 35×35 (figure 5)."""
    return Branches(
        chain(channels, (64 // c, 1)),
        chain(channels, (48 // c, 1), (64 // c, 5)),
        chain(channels, (64 // c, 1), (96 // c, 3), (96 // c, 3)),
        pooled(channels, pool),
    )


def to17(channels: int, c: int) -> Branches:
    """From 35×35 to 17×17 (figure 10)."""
    return Branches(
        convolution(channels, 384 // c, 3, stride=2),
        nn.Sequential(chain(channels, (64 // c, 1), (96 // c, 3)), convolution(96 // c, 96 // c, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def mixed17(channels: int, width: int, c: int) -> Branches:
    """At 17×17, n×n convolutions factorised into 1×n and n×1 (figure 6, n = 7)."""
    across, down, out = (1, 7), (7, 1), 192 // c
    return Branches(
        chain(channels, (out, 1)),
        chain(channels, (width, 1), (width, across), (out, down)),
        chain(channels, (width, 1), (width, down), (width, across), (width, down), (out, across)),
        pooled(channels, out),
    )


def to8(channels: int, c: int) -> Branches:
    """From 17×17 to 8×8."""
    wide = chain(channels, (192 // c, 1), (192 // c, (1, 7)), (192 // c, (7, 1)))
    return Branches(
        nn.Sequential(chain(channels, (192 // c, 1)), convolution(192 // c, 320 // c, 3, stride=2)),
        nn.Sequential(wide, convolution(192 // c, 192 // c, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def mixed8(channels: int, c: int) -> Branches:
    """At 8×8, branches that branch again (figure 7)."""

    def fork() -> Branches:
        return Branches(chain(384 // c, (384 // c, (1, 3))), chain(384 // c, (384 // c, (3, 1))))

    return Branches(
        chain(channels, (320 // c, 1)),
        nn.Sequential(chain(channels, (384 // c, 1)), fork()),
        nn.Sequential(chain(channels, (448 // c, 1), (384 // c, 3)), fork()),
        pooled(channels, 192 // c),
    )


def inception(
    channels: int = 3, size: int = 299, classes: int = 1000, slim: int = 1, dropout: float = 0.5, mesh=None
) -> nn.Sequential:
    """Inception-v3 as torchvision has it, without the auxiliary classifier: 23,834,568 parameters with the defaults.

    For images (batch, channels, size, size) of at least 75 pixels a side. slim: divides the channels of all layers, 16
    being divisible by it. ValueError for other sizes. It is not split over a mesh.
    """
    if size < 75:
        raise ValueError(f"inception: size={size}, it must be at least 75 to be halved five times")
    if slim < 1 or 16 % slim:
        raise ValueError(f"inception: slim={slim}, it must divide 16")
    c = slim
    model = nn.Sequential(
        convolution(channels, 32 // c, 3, stride=2),  # (batch, 32, 149, 149)
        convolution(32 // c, 32 // c, 3),
        convolution(32 // c, 64 // c, 3, padding=1),
        nn.MaxPool2d(3, stride=2),  # (batch, 64, 73, 73)
        convolution(64 // c, 80 // c, 1),
        convolution(80 // c, 192 // c, 3),
        nn.MaxPool2d(3, stride=2),  # (batch, 192, 35, 35)
        mixed35(192 // c, 32 // c, c),
        mixed35(256 // c, 64 // c, c),
        mixed35(288 // c, 64 // c, c),
        to17(288 // c, c),  # (batch, 768, 17, 17)
        *(mixed17(768 // c, width // c, c) for width in (128, 160, 160, 192)),
        to8(768 // c, c),  # (batch, 1280, 8, 8)
        mixed8(1280 // c, c),
        mixed8(2048 // c, c),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2048 // c, classes),
    )
    model.example = images((channels, size, size), classes)
    return model
