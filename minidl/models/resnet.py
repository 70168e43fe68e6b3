"""Residual networks (He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition")."""

from minidl import nn, ops
from minidl.models.examples import images

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # table 1
BOTTLENECKS = (50, 101, 152)
STEMS = ("imagenet", "cifar")


class BasicBlock(nn.Module):
    """relu(x + f(x)), f being two 3×3 convolutions (figure 5, left); the first one may halve the size by its stride."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1):
        self.conv1, self.norm1 = convolution(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = shortcut(channels, width, stride)

    def forward(self, x):
        y = ops.relu(self.norm1(self.conv1(x)))
        return ops.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(x + f(x)), f being 1×1, 3×3 and 1×1 convolutions to `width` and up to four times that (figure 5, right).

    The stride is that of the 3×3 convolution, as in PyTorch, where the paper has it in the one before.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1):
        self.conv1, self.norm1 = convolution(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = convolution(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.shortcut = shortcut(channels, 4 * width, stride)

    def forward(self, x):
        y = ops.relu(self.norm1(self.conv1(x)))
        y = ops.relu(self.norm2(self.conv2(y)))
        return ops.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or where the shape changes a projection by a 1×1 convolution (section 3.3, option B)."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(convolution(channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def convolution(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Without a bias, which the normalisation after it would take away; it starts as in He et al. 2015."""
    layer = nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def resnet(
    layers: int = 18, channels: int = 3, size: int = 224, classes: int = 1000, width: int = 64,
    stem: str = "imagenet", mesh=None,
) -> nn.Sequential:  # fmt: skip
    """A stem, four stages of residual blocks of `width` channels and its doubles, average pooling, a linear layer.

    For images (batch, channels, size, size). stem: "imagenet", a 7×7 convolution and a pooling that make the image four
    times smaller, or "cifar" for small images, a 3×3 convolution. ValueError for a depth that the paper does not have.
    It is not split over a mesh.
    """
    if layers not in STAGES:
        raise ValueError(f"resnet: layers={layers}, there are {', '.join(map(str, STAGES))}")
    if stem not in STEMS:
        raise ValueError(f"resnet: stem={stem!r}, choose one of {', '.join(STEMS)}")
    if stem == "imagenet":
        blocks = [convolution(channels, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        blocks = [convolution(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    kind = Bottleneck if layers in BOTTLENECKS else BasicBlock
    sizes, before = [], width
    for stage, count in enumerate(STAGES[layers]):
        for block in range(count):
            sizes.append((before, width << stage, 2 if stage and not block else 1))
            before = kind.expansion * (width << stage)
    blocks += nn.repeated_kinds(sizes, lambda of_block: kind(*of_block))
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    model.example = images((channels, size, size), classes)
    return model
