"""What the kernels are timed in: small chains of blocks that take a training step, and updates of optimizers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from minidl import kernels, nn, optim
from minidl.kernels import meta
from minidl.kernels.algorithms import COMPILED_FROM
from minidl.kernels.meta import MetaArray
from minidl.models.gpt import gpt
from minidl.models.lstm import lstm_classifier
from minidl.models.vae import vae
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.tensor import Tensor, device
from simulator.compute import timed_as

UPDATE_SIZES = (1 << 8, 1 << 12, 1 << 15, 1 << 16, 1 << 19, 1 << 21)  # elements: compiled code for large ones
FEW = COMPILED_FROM - 1  # elements: as many as NumPy still works on, before compiled code takes over at once
OTHER_OPTIMIZERS = (  # than a TrainingStep has
    optim.Adam, optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Lion, optim.LAMB,
)  # fmt: skip
DENSE = (  # width, batch
    (32, 8), (64, 32), (256, 64), (512, FEW // 512), (512, FEW // 512 + 1), (1024, 256), (1024, 1024),
)  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """A chain of blocks to train, and the shape of its input; tokens: which are numbers of words below 256."""

    build: Callable[[], list[Module]]
    shape: tuple[int, ...]
    tokens: bool = False

    def step(self, where: str) -> Callable[[], object]:
        """A training step on device `where`, after the first one, which makes the state of the optimizer."""
        with device(where):
            step = TrainingStep(self.build())
        if where == "meta":
            x = MetaArray(self.shape, "int64" if self.tokens else "float32")
        else:
            generator = np.random.default_rng(0)
            x = generator.integers(256, size=self.shape) if self.tokens else generator.random(self.shape, np.float32)
        step(x)
        return lambda: step(x)


@dataclass(frozen=True)
class Update:
    """An optimizer of one parameter of `size` elements."""

    make: type[optim.Optimizer]
    size: int

    def step(self, where: str) -> Callable[[], object]:
        """Its step on device `where`, after the first one, which makes its state."""
        with device(where):
            p = nn.Parameter((self.size,), init=nn.init.constant(1.0))
            p.grad = Tensor(p.kernels.full(p.shape, 1, p.dtype))
            optimizer = self.make([p], lr=1e-9)
            optimizer.step()
        return optimizer.step


class TrainingStep:
    """One training step of a chain on arrays of any device, block by block as the worker takes it."""

    def __init__(self, chain: list[Module]):
        self.chain, self.loss = chain, nn.CrossEntropyLoss()
        self.parameters = [p for block in chain for p in block.parameters()]
        for p in self.parameters:
            p.gradient_buffer = p.kernels.full(p.shape, 0, p.dtype)
        self.optimizer = optim.SGD(self.parameters, lr=1e-9, momentum=0.9)

    def __call__(self, x) -> None:
        x, saved = blocks.forward_through(enumerate(self.chain), x, first_trained=0)
        target = kernels.BY_ARRAY[type(x)].full(x.shape[:-1], 0, np.dtype("int64"))
        _, _, gradient = blocks.loss_and_gradient(self.loss, x, target)
        for p in self.parameters:
            p.grad = None
        blocks.backward_through(saved, gradient)
        self.optimizer.step()


class CopyAndAdd(nn.Module):
    """x.clone() + x: for the times of copies, and of additions, as which a kernel is priced that has no times."""

    def forward(self, x):
        return x.clone() + x


def dense() -> Iterator[Chain]:
    """Perceptrons."""
    for width, batch in DENSE:
        yield Chain(lambda w=width: [
            nn.Linear(w, w), nn.ReLU(), CopyAndAdd(), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def activated() -> Iterator[Chain]:
    """GELU and layer norm, with a block before them: nobody wants the gradient of the first one's input."""
    for width, batch in DENSE:
        yield Chain(lambda w=width: [
            CopyAndAdd(), nn.GELU("tanh"), nn.LayerNorm(w), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def images() -> Iterator[Chain]:
    """Convolutions, in each of the ways in which they are computed."""
    convolutions = (
        (1, 8, 8, 16), (1, 16, 8, FEW // 1024), (1, 16, 8, FEW // 1024 + 1), (16, 32, 16, 32),
        (3, 20, 32, 16), (64, 64, 8, 64), (3, 16, 32, 24), (1, 32, 28, 100), (3, 32, 32, 64),
    )  # fmt: skip
    for channels, width, size, batch in convolutions:
        yield Chain(lambda c=channels, w=width, s=size: [
            nn.Conv2d(c, w, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(w, w, 3, padding=1), nn.Flatten(),
            nn.Linear(w * (s // 2) ** 2, 10),
        ], (batch, channels, size, size))  # fmt: skip


def sequences() -> Iterator[Chain]:
    """Transformers, of the older and the newer kind."""
    for hidden, sequence, batch in ((32, 16, 4), (64, 64, 8), (128, 128, 8)):
        yield Chain(lambda h=hidden, s=sequence: [
            *gpt(1, h, 4, 256, s).blocks[:2], *gpt(1, h, 4, 256, s, dropout=0.1).blocks[1:]
        ], (batch, sequence), tokens=True)  # fmt: skip
        yield Chain(lambda h=hidden, s=sequence: gpt(
            1, h, 4, 256, s, kv_heads=2, positions="rotary", feed_forward="swiglu", norm="rms"
        ).blocks, (batch, sequence), tokens=True)  # fmt: skip


def normalized() -> Iterator[Chain]:
    """Convolutions with batch norm."""
    for width, size, batch in ((16, 8, 16), (32, 16, 32), (64, 32, 16)):
        yield Chain(lambda w=width: [
            nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(w, 10),
        ], (batch, width, size, size))  # fmt: skip


def recurrent() -> Iterator[Chain]:
    """LSTMs."""
    for width, steps, batch in ((8, 8, 16), (64, 8, 64), (128, 28, 128)):
        yield Chain(lambda w=width, s=steps: lstm_classifier(w, s, w).blocks, (batch, 1, steps, width))


def coders() -> Iterator[Chain]:
    """Variational autoencoders."""
    for width, batch in ((64, 16), (256, 64), (512, 256)):
        yield Chain(lambda w=width: [*vae(8, w, w // 2).blocks, nn.Softplus()], (batch, 1, 8, 8))


def updates() -> Iterator[Update]:
    """Optimizers of which no chain takes a step."""
    for make, size in product(OTHER_OPTIMIZERS, UPDATE_SIZES):
        yield Update(make, size)


OF_IMAGES = (images, normalized)
KINDS = (dense, activated, *OF_IMAGES, sequences, recurrent, coders, updates)


def kinds(called: Collection[str] | None = None) -> list[Callable[[], Iterator[Chain | Update]]]:
    """Those that together call the kernels `called`, by the names of `timed_as`; all where that is None."""
    if called is None:
        return list(KINDS)
    chosen, missing = [], set(called)
    for kind in KINDS:
        names = {name for case in kind() for name in kernels_of(case)}
        if missing & names:
            chosen.append(kind)
            missing -= names
    return chosen


def kernels_of(case: Chain | Update) -> set[str]:
    """The kernels that a step calls, by the names of `timed_as`."""
    step = case.step("meta")
    with meta.record() as profile:
        step()
    return {timed_as(call) for call in profile}
