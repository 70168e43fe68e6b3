"""What the kernels are timed in: small chains of blocks that take a training step, and updates of optimizers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from minidl import kernels, nn, optim
from minidl.creation import device
from minidl.kernels import meta
from minidl.kernels.algorithms import COMPILED_FROM
from minidl.kernels.meta import MetaArray
from minidl.models.gpt import gpt
from minidl.models.lstm import lstm_classifier
from minidl.models.vae import vae
from minidl.nn.module import Module
from minidl.op import Op
from minidl.parallel import blocks
from minidl.parallel.experts import MixtureOfExperts
from minidl.tensor import Tensor
from simulator.compute.timed import as_computed, timed_as

FEW = COMPILED_FROM - 1  # elements: as many as NumPy still works on, before compiled code takes over at once
OTHER_OPTIMIZERS = (  # than a TrainingStep has
    optim.Adam, optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Lion, optim.LAMB,
)  # fmt: skip
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Sizes:
    """In which sizes products and kernels are timed; of a kind of cases that has none nothing is.

    gemm: along m, n and k of products. dense: (width, batch), also of `activated`. images: (channels, width, places a
    side, batch). sequences: (hidden, sequence, batch). attended: (heads, sequence, width, batch). mixed: (hidden,
    sequence, batch). normalized: (width, places a side, batch). recurrent: (width,
    steps, batch). coders: (width, batch). updates: elements.
    """

    gemm: tuple[int, ...]
    dense: Shapes = ()
    activated: Shapes = ()
    images: Shapes = ()
    sequences: Shapes = ()
    attended: Shapes = ()
    mixed: Shapes = ()
    normalized: Shapes = ()
    recurrent: Shapes = ()
    coders: Shapes = ()
    updates: tuple[int, ...] = ()


DENSE = ((32, 8), (64, 32), (256, 64), (512, FEW // 512), (512, FEW // 512 + 1), (1024, 256), (1024, 1024))
WIDE = ((32, 8), (256, 64), (1024, 256), (2048, 2048), (4096, 4096))
ON_CPU = Sizes(
    gemm=(4, 16, 64, 256, 1024),
    dense=DENSE,
    activated=DENSE,
    images=(  # convolutions in each of the ways in which they are computed
        (1, 8, 8, 16), (1, 16, 8, FEW // 1024), (1, 16, 8, FEW // 1024 + 1), (16, 32, 16, 32),
        (3, 20, 32, 16), (64, 64, 8, 64), (3, 16, 32, 24), (1, 32, 28, 100), (3, 32, 32, 64),
    ),
    sequences=((32, 16, 4), (64, 64, 8), (128, 128, 8)),
    attended=((4, 32, 16, 2), (8, 64, 16, 4), (8, 128, 32, 4)),
    mixed=((32, 16, 4), (64, 64, 8), (128, 128, 4)),
    normalized=((16, 8, 16), (32, 16, 32), (64, 32, 16)),
    recurrent=((8, 8, 16), (64, 8, 64), (128, 28, 128)),
    coders=((64, 16), (256, 64), (512, 256)),
    updates=(1 << 8, 1 << 12, 1 << 15, 1 << 16, 1 << 19, 1 << 21),  # compiled code for large ones
)  # fmt: skip
ON_GPU = Sizes(
    gemm=(4, 16, 64, 256, 1024, 4096),
    dense=WIDE,
    activated=WIDE,
    images=((1, 8, 8, 16), (3, 32, 32, 64), (16, 32, 16, 64), (64, 64, 32, 64), (64, 128, 56, 64), (256, 256, 14, 128)),
    sequences=((32, 16, 4), (128, 128, 8), (256, 512, 16)),
    attended=((4, 32, 16, 2), (8, 128, 32, 8), (16, 512, 64, 4)),
    mixed=((32, 16, 4), (128, 128, 8), (512, 256, 8)),
    normalized=((16, 8, 16), (64, 32, 64), (64, 56, 64)),
    recurrent=((8, 8, 16), (128, 28, 128), (512, 32, 256)),
    coders=((64, 16), (512, 256), (2048, 1024)),
    updates=(1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 24),
)


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
            values = generator.integers(256, size=self.shape) if self.tokens else generator.random(self.shape, "f4")
            x = kernels.for_device(where).array(values, values.dtype)
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


def dense(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Perceptrons."""
    for width, batch in sizes.dense:
        yield Chain(lambda w=width: [
            nn.Linear(w, w), nn.ReLU(), CopyAndAdd(), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def activated(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """GELU and layer norm, with a block before them: nobody wants the gradient of the first one's input."""
    for width, batch in sizes.activated:
        yield Chain(lambda w=width: [
            CopyAndAdd(), nn.GELU("tanh"), nn.LayerNorm(w), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def images(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Convolutions."""
    for channels, width, size, batch in sizes.images:
        yield Chain(lambda c=channels, w=width, s=size: [
            nn.Conv2d(c, w, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(w, w, 3, padding=1), nn.Flatten(),
            nn.Linear(w * (s // 2) ** 2, 10),
        ], (batch, channels, size, size))  # fmt: skip


def sequences(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Transformers, of the older and the newer kind."""
    for hidden, sequence, batch in sizes.sequences:
        yield Chain(lambda h=hidden, s=sequence: [
            *gpt(1, h, 4, 256, s).blocks[:2], *gpt(1, h, 4, 256, s, dropout=0.1).blocks[1:]
        ], (batch, sequence), tokens=True)  # fmt: skip
        yield Chain(lambda h=hidden, s=sequence: gpt(
            1, h, 4, 256, s, kv_heads=2, positions="rotary", feed_forward="swiglu", norm="rms"
        ).blocks, (batch, sequence), tokens=True)  # fmt: skip


class Tiles(nn.Module):
    """Attention of x (batch, heads, sequence, width) to itself in tiles, as a ring of ranks needs it on each device."""

    def forward(self, x):
        return _AttendInTiles()(x)


class _AttendInTiles(Op):
    def forward(self, x):
        self.x = x
        self.y, self.log_sum_exp = self.kernels.attention(x, x, x, 1.0, False)
        return self.y

    def backward(self, grad):
        x = self.x
        grads = self.kernels.attention_grad(grad, x, x, x, self.y, self.log_sum_exp, 1.0, False)
        return self.kernels.add(grads[0], self.kernels.add(*grads[1:]))


def attended(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Attention in tiles."""
    for heads, sequence, width, batch in sizes.attended:
        yield Chain(lambda w=width: [CopyAndAdd(), Tiles(), nn.Linear(w, 10)], (batch, heads, sequence, width))


class Mixed(nn.Module):
    """What a mixture of eight experts makes of x; without biases, whose additions take longer than others."""

    def __init__(self, hidden: int):
        self.mixture = MixtureOfExperts(hidden, 4 * hidden, 8, bias=False)

    def forward(self, x):
        y, _ = self.mixture(x)
        return y


def mixed(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Mixtures of experts."""
    for hidden, sequence, batch in sizes.mixed:
        yield Chain(lambda h=hidden: [CopyAndAdd(), Mixed(h), nn.Linear(h, 10)], (batch, sequence, hidden))


def normalized(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Convolutions with batch norm."""
    for width, size, batch in sizes.normalized:
        yield Chain(lambda w=width: [
            nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(w, 10),
        ], (batch, width, size, size))  # fmt: skip


def recurrent(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """LSTMs."""
    for width, steps, batch in sizes.recurrent:
        yield Chain(lambda w=width, s=steps: lstm_classifier(w, s, w).blocks, (batch, 1, steps, width))


def coders(sizes: Sizes = ON_CPU) -> Iterator[Chain]:
    """Variational autoencoders."""
    for width, batch in sizes.coders:
        yield Chain(lambda w=width: [*vae(8, w, w // 2).blocks, nn.Softplus()], (batch, 1, 8, 8))


def updates(sizes: Sizes = ON_CPU) -> Iterator[Update]:
    """Optimizers of which no chain takes a step."""
    for make, size in product(OTHER_OPTIMIZERS, sizes.updates):
        yield Update(make, size)


OF_IMAGES = (images, normalized)
KINDS = (dense, activated, *OF_IMAGES, sequences, attended, mixed, recurrent, coders, updates)


def kinds(
    called: Collection[str] | None = None, sizes: Sizes = ON_CPU, device: str = "cpu"
) -> list[Callable[[Sizes], Iterator[Chain | Update]]]:
    """Those that together call the kernels `called`, by the names of `timed_as`; all where that is None."""
    if called is None:
        return list(KINDS)
    chosen, missing = [], set(called)
    for kind in KINDS:
        names = {name for case in kind(sizes) for name in kernels_of(case, device)}
        if missing & names:
            chosen.append(kind)
            missing -= names
    return chosen


def kernels_of(case: Chain | Update, device: str = "cpu") -> set[str]:
    """The kernels that a step calls on `device`, by the names of `timed_as`."""
    with kernels.predicting(device):
        step = case.step("meta")
        with meta.record() as profile:
            step()
    return {timed_as(as_computed(call, device)) for call in profile}
