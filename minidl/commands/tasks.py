"""What `python -m minidl train` trains: models by name, each with its data and its loss, or one of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minidl import data, models, nn
from minidl.commands.arguments import Refused
from minidl.commands.own_model import OwnModel, blamed
from minidl.models.builders import Builder
from minidl.parallel import Plan
from minidl.parallel.chain_profile import build_on_meta, loss_of

Pair = tuple[data.Dataset, data.Dataset]  # to train on, to test on


@dataclass(frozen=True)
class Source:
    """load: gives the data; in_folder: from a folder, with or without download."""

    load: Callable[..., Pair]
    in_folder: bool = False

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


SOURCES = {
    "mlp-digits": Source(data.digits),
    "cnn-digits": Source(data.digits),
    "resnet-digits": Source(data.digits),
    "lstm-digits": Source(data.digits),
    "vae-digits": Source(digit_images),
    "gpt-tiny": Source(coriolanus),
    "moe-tiny": Source(coriolanus),
    "lenet": Source(data.mnist, in_folder=True),
    "lstm-mnist": Source(data.mnist, in_folder=True),
    "cifar-cnn": Source(data.cifar10, in_folder=True),
    "resnet18-cifar": Source(data.cifar10, in_folder=True),
}


@dataclass(frozen=True)
class Task:
    """A model, the data to train and to test it on, and its loss. file: the user's, which it comes from."""

    build: Builder
    train_set: data.Dataset
    test_set: data.Dataset
    loss: nn.Loss
    file: Path | None = None

    @property
    def labels(self) -> bool:
        """Whether targets are classes."""
        return self.train_set[np.arange(1)][1].dtype.kind in "iu"


def task(model: str, plan: Plan, folder: Path | None, download: bool) -> Task:
    """That of a model by name, or of `file.py:build`. Refused where its data or its loss are not to be had."""
    if model in SOURCES:
        build = models.builder(model)
        return Task(build, *SOURCES[model].data(model, folder, download), loss_of(build_on_meta(build, plan.mesh())))
    if folder or download:
        raise Refused(f"{model} is trained on the digits, or what its file's data() gives: no --folder, no --download")
    own = OwnModel(model)
    with blamed(own.path):
        return Task(own.build, *own.data_and_loss(plan), own.path)
