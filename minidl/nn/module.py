"""Module: a tree of layers with named parameters; Parameter: a leaf that an optimizer changes; Shard: a part of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minidl import kernels as _kernels
from minidl import random
from minidl.nn.init import Recipe
from minidl.tensor import Tensor, default_device, dtype_of, float32, no_grad


@dataclass(frozen=True)
class Shard:
    """Which part of a whole parameter a rank holds: slice `index` of `count` along `dim`.

    With `parts` > 1 the dimension is that many equal parts one after the other (query, key and value in one matrix),
    and the shard takes its slice of each.
    """

    dim: int
    index: int
    count: int
    parts: int = 1

    def _slices(self, whole: np.ndarray) -> np.ndarray:
        """A view of `whole` with its split dimension as (parts, count, rest)."""
        shape = whole.shape
        return whole.reshape(*shape[: self.dim], self.parts, self.count, -1, *shape[self.dim + 1 :])

    def whole_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n * self.count if d == self.dim else n for d, n in enumerate(shape))

    def cut(self, whole: np.ndarray) -> np.ndarray:
        """This rank's part of `whole`."""
        part = self._slices(whole)[(slice(None),) * (self.dim + 1) + (self.index,)]
        shape = whole.shape
        return part.reshape(*shape[: self.dim], shape[self.dim] // self.count, *shape[self.dim + 1 :])

    def paste(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Write this rank's part into `whole`, which must be contiguous."""
        target = self._slices(whole)[(slice(None),) * (self.dim + 1) + (self.index,)]
        target[...] = part.reshape(target.shape)


class Parameter(Tensor):
    """A tensor that training changes.

    shape: what this rank holds. init: the recipe for the whole parameter. shard: the part held, None for all of it.
    gradient_buffer: an array in which the gradient must lie (in shared memory, say), None for anywhere.
    updated_here: which of its elements, flat, the optimizer of this rank updates, others the rest; None for all.
    """

    __slots__ = ("init", "shard", "gradient_buffer", "updated_here", "name")

    def __init__(self, shape: tuple[int, ...], init: Recipe, shard: Shard | None = None, dtype=float32):
        kernels = _kernels.for_device(default_device())
        super().__init__(kernels.empty(tuple(shape), dtype_of(dtype)), requires_grad=True)
        self.init, self.shard, self.gradient_buffer, self.name = init, shard, None, ""
        self.updated_here: slice | None = None
        if self.device != "meta":
            self.materialize(random.default_generator())

    def materialize(self, generator: np.random.Generator, dtype=None) -> None:
        """Draw the values on the CPU: the whole parameter from `generator`, then this rank's part of it."""
        whole_shape = self.shape if self.shard is None else self.shard.whole_shape(self.shape)
        values = self.init(generator, whole_shape)
        self.set_whole(values, dtype or self.dtype)

    def set_whole(self, values: np.ndarray, dtype=None) -> None:
        """Take this rank's part of the whole parameter `values`."""
        part = values if self.shard is None else self.shard.cut(values)
        if part.shape != self.shape:
            raise ValueError(f"parameter {self.name or '?'} has shape {self.shape}, the values given {part.shape}")
        self.data = _kernels.for_device("cpu").array(part, dtype or self.dtype)

    def gradient_destination(self):
        return self.gradient_buffer if self.grad is None else None

    def accumulate_grad(self, grad, owned: bool) -> None:
        if self.grad is None and self.gradient_buffer is not None:
            if grad is not self.gradient_buffer:
                self.kernels.assign(self.gradient_buffer, grad)
            self.grad = Tensor(self.gradient_buffer)
        else:
            super().accumulate_grad(grad, owned)


class Module:
    """A layer or a tree of layers: parameters and modules assigned as attributes are found by name.

    A subclass writes `forward`; calling the module runs it. `training` switches dropout on and off.
    """

    training = True

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs):
        return self.forward(*inputs)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Each parameter once, with its dotted name."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def train(self, mode: bool = True) -> Module:
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name; they share memory with the model."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict) -> None:
        """Copy whole parameters by name from tensors or arrays; ValueError lists the names missing and unexpected."""
        own = dict(self.named_parameters())
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(
                f"state does not fit the model: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
            )
        with no_grad():
            for name, parameter in own.items():
                value = state[name]
                parameter.name = parameter.name or name
                parameter.set_whole(value.numpy() if isinstance(value, Tensor) else np.asarray(value))

    def materialize(self, seed: int, prefix: str = "", dtype=None) -> None:
        """Draw on the CPU every parameter that has no values yet, each from a generator keyed by (seed, its name)."""
        for name, parameter in self.named_parameters(prefix):
            parameter.name = name
            if parameter.device == "meta":
                parameter.materialize(random.generator(seed, name), dtype)
            elif dtype is not None:
                parameter.data = parameter.kernels.cast(parameter.data, dtype)

    def __repr__(self) -> str:
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n" + "\n".join(children) + "\n)" if children else ")")

    def extra_repr(self) -> str:
        """The options shown between the parentheses."""
        return ""


class Sequential(Module):
    """A chain of blocks: the output of each is the input of the next. Its parameters are named `0.weight`, …"""

    def __init__(self, *blocks: Module):
        for i, block in enumerate(blocks):
            if not isinstance(block, Module):
                raise TypeError(f"Sequential needs modules, argument {i} is a {type(block).__name__}")
            setattr(self, str(i), block)

    @property
    def blocks(self) -> list[Module]:
        return [child for _, child in self.named_children()]

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> Module:
        return self.blocks[index]
