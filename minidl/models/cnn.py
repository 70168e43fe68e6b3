"""Small convolutional networks, which the tensor ranks of a mesh can share in four ways."""

from minidl import nn
from minidl.models.examples import images
from minidl.models.image_layers import ImageLayers
from minidl.parallel.mesh import Mesh


def cnn(
    channels: int = 1,
    size: int = 8,
    classes: int = 10,
    widths=(16, 32, 64),
    mesh: Mesh | None = None,
    split: str = "space",
) -> nn.Sequential:
    """Three 3×3 convolutions with ReLU, of `widths` channels, pooling 2×2 after the first two; then a linear layer.

    For images (batch, channels, size, size); ValueError if size is not divisible by 4. split: how the mesh's tensor
    ranks share it: "batch", "output" (channels), "input" (channels) or "space"; see `ImageLayers`.
    """
    if size % 4:
        raise ValueError(f"cnn: size={size}, it must be divisible by 4 to be halved twice")
    first, second, third = widths
    layers = ImageLayers(mesh, split, channels, size)
    model = nn.Sequential(
        layers.convolution(first, 3, padding=1, pool=2),
        nn.ReLU(),
        layers.max_pool(2),
        layers.convolution(second, 3, padding=1, pool=2),
        nn.ReLU(),
        layers.max_pool(2),
        layers.convolution(third, 3, padding=1),
        nn.ReLU(),
        layers.flatten(),
        *layers.dense(classes),
    )
    model.example = images((channels, size, size), classes)
    return model


def cifar_cnn(classes: int = 10, mesh: Mesh | None = None, split: str = "space") -> nn.Sequential:
    """conv32-pool-conv64-pool-conv64-dense64-dense10 for images (batch, 3, 32, 32): 122,570 parameters.

    3×3 convolutions without padding, ReLU, 2×2 pooling: the network of TensorFlow's tutorial "Convolutional Neural
    Network (CNN)", https://www.tensorflow.org/tutorials/images/cnn. split: how the mesh's tensor ranks share it:
    "batch", "output" (channels), "input" (channels; the first convolution, of three colours, is whole on every rank) or
    "space"; see `ImageLayers`.
    """
    layers = ImageLayers(mesh, split, 3, 32)
    convolutions = [
        layers.convolution(32, 3, pool=2),  # (batch, 32, 30, 30)
        nn.ReLU(),
        layers.max_pool(2),  # (batch, 32, 15, 15)
        layers.convolution(64, 3, pool=2),  # (batch, 64, 13, 13)
        nn.ReLU(),
        layers.max_pool(2),  # (batch, 64, 6, 6)
        layers.convolution(64, 3),  # (batch, 64, 4, 4)
        nn.ReLU(),
        layers.flatten(),
    ]
    hidden, last = layers.dense(64, classes)
    model = nn.Sequential(*convolutions, hidden, nn.ReLU(), last)
    model.example = images((3, 32, 32), classes)
    return model
