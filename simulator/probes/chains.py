"""The chains of blocks in which kernels are timed: small ones that together call every kernel, in several sizes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import product

from minidl import nn, optim
from minidl.models.gpt import gpt
from minidl.models.lstm import lstm_classifier
from minidl.models.vae import vae
from minidl.op import Op
from minidl.parallel.experts import MixtureOfExperts
from simulator.probes.sizes import Sizes
from simulator.probes.steps import Chain, Update, kernels_of

OTHER_OPTIMIZERS = (  # than a TrainingStep has
    optim.Adam, optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Lion, optim.LAMB, optim.Adafactor,
)  # fmt: skip


class CopyAndAdd(nn.Module):
    """x.clone() + x: for the times of copies, and of additions, as which a kernel is priced that has no times."""

    def forward(self, x):
        return x.clone() + x


def dense(sizes: Sizes) -> Iterator[Chain]:
    """Perceptrons."""
    for width, batch in sizes.dense:
        yield Chain(lambda w=width: [
            nn.Linear(w, w), nn.ReLU(), CopyAndAdd(), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def activated(sizes: Sizes) -> Iterator[Chain]:
    """GELU and layer norm, with a block before them: nobody wants the gradient of the first one's input."""
    for width, batch in sizes.activated:
        yield Chain(lambda w=width: [
            CopyAndAdd(), nn.GELU("tanh"), nn.LayerNorm(w), nn.Linear(w, 10)
        ], (batch, width))  # fmt: skip


def images(sizes: Sizes) -> Iterator[Chain]:
    """Convolutions."""
    for channels, width, size, batch in sizes.images:
        yield Chain(lambda c=channels, w=width, s=size: [
            nn.Conv2d(c, w, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(w, w, 3, padding=1), nn.Flatten(),
            nn.Linear(w * (s // 2) ** 2, 10),
        ], (batch, channels, size, size))  # fmt: skip


def sequences(sizes: Sizes) -> Iterator[Chain]:
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


def attended(sizes: Sizes) -> Iterator[Chain]:
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


def mixed(sizes: Sizes) -> Iterator[Chain]:
    """Mixtures of experts."""
    for hidden, sequence, batch in sizes.mixed:
        yield Chain(lambda h=hidden: [CopyAndAdd(), Mixed(h), nn.Linear(h, 10)], (batch, sequence, hidden))


def normalized(sizes: Sizes) -> Iterator[Chain]:
    """Convolutions with batch norm."""
    for width, size, batch in sizes.normalized:
        yield Chain(lambda w=width: [
            nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(w, 10),
        ], (batch, width, size, size))  # fmt: skip


def recurrent(sizes: Sizes) -> Iterator[Chain]:
    """LSTMs."""
    for width, steps, batch in sizes.recurrent:
        yield Chain(lambda w=width, s=steps: lstm_classifier(w, s, w).blocks, (batch, 1, steps, width))


def coders(sizes: Sizes) -> Iterator[Chain]:
    """Variational autoencoders."""
    for width, batch in sizes.coders:
        yield Chain(lambda w=width: [*vae(8, w, w // 2).blocks, nn.Softplus()], (batch, 1, 8, 8))


def updates(sizes: Sizes) -> Iterator[Update]:
    """Optimizers of which no chain takes a step."""
    for make, size in product(OTHER_OPTIMIZERS, sizes.updates):
        yield Update(make, size)


OF_IMAGES = (images, normalized)
KINDS = (dense, activated, *OF_IMAGES, sequences, attended, mixed, recurrent, coders, updates)


def kinds(
    called: Collection[str] | None, sizes: Sizes, device: str
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
