"""Small convolutional networks."""

from minidl import nn
from minidl.models.examples import images


def cnn(channels: int = 1, size: int = 8, classes: int = 10, widths=(16, 32, 64), mesh=None) -> nn.Sequential:
    """Three 3×3 convolutions with ReLU, of `widths` channels, pooling 2×2 after the first two; then a linear layer.

    For images (batch, channels, size, size); ValueError if size is not divisible by 4. It is not split over a mesh.
    """
    if size % 4:
        raise ValueError(f"cnn: size={size}, it must be divisible by 4 to be halved twice")
    first, second, third = widths
    model = nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(second, third, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(third * (size // 4) ** 2, classes),
    )
    model.example = images((channels, size, size), classes)
    return model


def cifar_cnn(classes: int = 10, mesh=None) -> nn.Sequential:
    """conv32-pool-conv64-pool-conv64-dense64-dense10 for images (batch, 3, 32, 32): 122,570 parameters.

    3×3 convolutions without padding, ReLU, 2×2 pooling: the network of TensorFlow's tutorial "Convolutional Neural
    Network (CNN)", https://www.tensorflow.org/tutorials/images/cnn. It is not split over a mesh.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),  # (batch, 32, 30, 30)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (batch, 32, 15, 15)
        nn.Conv2d(32, 64, 3),  # (batch, 64, 13, 13)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (batch, 64, 6, 6)
        nn.Conv2d(64, 64, 3),  # (batch, 64, 4, 4)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
    model.example = images((3, 32, 32), classes)
    return model
