"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition")."""

from minidl import nn
from minidl.models.examples import images


def lenet(channels: int = 1, classes: int = 10, mesh=None) -> nn.Sequential:
    """LeNet-5 in its modern form, for images (batch, channels, 28, 28): 61,706 parameters with the defaults.

    The sizes are the paper's (section II.B, figure 2). Modern are ReLU for tanh, max pooling for averages with learned
    scales, a second convolution that sees all channels, a linear layer for radial basis functions, and padding that
    makes of 28×28 pixels the paper's 32×32. It is not split over a mesh.
    """
    model = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),  # (batch, 6, 28, 28)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (batch, 6, 14, 14)
        nn.Conv2d(6, 16, 5),  # (batch, 16, 10, 10)
        nn.ReLU(),
        nn.MaxPool2d(2),  # (batch, 16, 5, 5)
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
    model.example = images((channels, 28, 28), classes)
    return model
