"""A step in which kernels are timed: of training a small chain of blocks, or of an optimizer alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl import kernels, nn, optim
from minidl.creation import device
from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.tensor import Tensor
from simulator.compute.timed import as_computed, timed_as


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


def kernels_of(case: Chain | Update, device: str) -> set[str]:
    """The kernels that a step calls on `device`, by the names of `timed_as`."""
    with kernels.predicting(device):
        step = case.step("meta")
        with meta.record() as profile:
            step()
    return {timed_as(as_computed(call, device)) for call in profile}
