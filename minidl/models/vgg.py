"""VGG (Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition")."""

from minidl import nn
from minidl.models.examples import images

# Table 1, configurations A, B, D and E: the convolutions of each of the five stages, between which the size is halved.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)  # channels of each stage, in multiples of the first one's


def vgg(
    layers: int = 16, channels: int = 3, size: int = 224, classes: int = 1000, width: int = 64, hidden: int = 4096,
    dropout: float = 0.5, mesh=None,
) -> nn.Sequential:  # fmt: skip
    """Stages of 3×3 convolutions, the first of `width` channels, and three linear layers: `layers` with weights.

    For images (batch, channels, size, size). VGG-16 with the defaults has 138,357,544 parameters. ValueError for a
    depth that the paper does not have, or a size that cannot be halved five times. It is not split over a mesh.

    Convolutions start as He et al. 2015 have it ("Delving Deep into Rectifiers"), without which this depth does not
    begin to learn.
    """
    if layers not in CONVOLUTIONS:
        raise ValueError(f"vgg: layers={layers}, there are {', '.join(map(str, CONVOLUTIONS))}")
    if size < 32 or size % 32:
        raise ValueError(f"vgg: size={size}, it must be divisible by 32 to be halved five times")
    blocks: list[nn.Module] = []
    before = channels
    for convolutions, multiple in zip(CONVOLUTIONS[layers], WIDTHS, strict=True):
        for _ in range(convolutions):
            convolution = nn.Conv2d(before, multiple * width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            blocks += [convolution, nn.ReLU()]
            before = multiple * width
        blocks.append(nn.MaxPool2d(2))
    model = nn.Sequential(
        *blocks,
        nn.Flatten(),
        nn.Linear(before * (size // 32) ** 2, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
    model.example = images((channels, size, size), classes)
    return model
