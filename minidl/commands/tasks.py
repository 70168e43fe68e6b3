"""The models that `python -m minidl train` trains, each with its data and its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import minidl
from minidl import data, models, nn
from minidl.commands.arguments import Refused

Pair = tuple[data.Dataset, data.Dataset]  # to train on, to test on


@dataclass(frozen=True)
class Task:
    """load: gives the data; in_folder: from a folder, with or without download. labels: whether targets are classes."""

    load: Callable[..., Pair]
    in_folder: bool = False
    labels: bool = True

    def data(self, model: str, folder: Path | None, download: bool) -> Pair:
        """The data sets; Refused where a folder is missing or has no use."""
        if not self.in_folder:
            if folder or download:
                raise Refused(f"{model} is trained on what comes with minidl: no --folder, no --download")
            return self.load()
        if folder is None:
            raise Refused(f"{model} is trained on {self.load.__name__}: name its --folder, and --download to fill it")
        try:
            return self.load(folder, download)
        except FileNotFoundError as error:
            raise Refused(f"{error}".replace("download=True", "--download")) from None


def digit_images() -> Pair:
    """The digits, each its own target."""
    train, test = data.digits()
    return data.ArrayDataset(train.x, train.x), data.ArrayDataset(test.x, test.x)


def coriolanus() -> Pair:
    """The text that comes with minidl, byte by byte, in windows of 128 that overlap by half; the last tenth tests."""
    tokens = np.frombuffer(data.coriolanus().encode("ascii"), np.uint8)
    first = len(tokens) * 9 // 10
    return data.TextDataset(tokens[:first], 128, stride=64), data.TextDataset(tokens[first:], 128)


TASKS = {
    "mlp-digits": Task(data.digits),
    "cnn-digits": Task(data.digits),
    "resnet-digits": Task(data.digits),
    "lstm-digits": Task(data.digits),
    "vae-digits": Task(digit_images, labels=False),
    "gpt-tiny": Task(coriolanus),
    "lenet": Task(data.mnist, in_folder=True),
    "lstm-mnist": Task(data.mnist, in_folder=True),
    "cifar-cnn": Task(data.cifar10, in_folder=True),
    "resnet18-cifar": Task(data.cifar10, in_folder=True),
}


def loss_of(model: str) -> nn.Loss:
    """The loss that the model carries, or cross-entropy."""
    with minidl.device("meta"):
        return getattr(models.builder(model)(), "loss", nn.CrossEntropyLoss)()
