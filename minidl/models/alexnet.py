"""AlexNet (Krizhevsky, Sutskever and Hinton 2012), in the one-tower variant of Krizhevsky 2014."""

from collections.abc import Sequence

from minidl import nn
from minidl.models.examples import images

WIDTHS = (64, 192, 384, 256, 256)  # Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"


def alexnet(
    channels: int = 3, size: int = 224, classes: int = 1000, widths: Sequence[int] = WIDTHS, hidden: int = 4096,
    dropout: float = 0.5, mesh=None,
) -> nn.Sequential:  # fmt: skip
    """Five convolutions of `widths` channels, three linear layers: 61,100,840 parameters with the defaults.

    For images (batch, channels, size, size) of at least 63 pixels a side, ValueError for smaller ones. The layers are
    torchvision's: without the paper's local response normalisation. It is not split over a mesh.
    """
    if size < 63:
        raise ValueError(f"alexnet: size={size}, three poolings after a convolution of stride 4 need at least 63")
    side = (size - 7) // 4 + 1  # after the first convolution
    for _ in range(3):
        side = (side - 3) // 2 + 1  # after each pooling
    a, b, c, d, e = widths
    model = nn.Sequential(
        nn.Conv2d(channels, a, 11, stride=4, padding=2),  # (batch, 64, 55, 55)
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (batch, 64, 27, 27)
        nn.Conv2d(a, b, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (batch, 192, 13, 13)
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(d, e, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # (batch, 256, 6, 6)
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(e * side * side, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
    model.example = images((channels, size, size), classes)
    return model
