"""Parameters, which an optimizer changes; Buffers, which forward changes; Shard, the part of one that a rank holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl import kernels as _kernels
from minidl import random
from minidl.nn.init import Recipe
from minidl.tensor import Tensor, default_device, dtype_of, float32


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


class Stored(Tensor):
    """A tensor with a name in `state_dict`, and a recipe that can draw its values anew on whatever rank needs them.

    shape: what this rank holds; or a tensor, whose values are taken. init: the recipe for the whole, not for the part.
    shard: the part held, None for all of it.
    """

    __slots__ = ("init", "shard", "name")

    def __init__(self, shape, *, init: Recipe | None = None, shard: Shard | None = None, dtype=None):
        if isinstance(shape, Tensor):
            if shape.device == "meta":
                raise ValueError(f"{type(self).__name__} of a tensor on meta: it needs a shape and a recipe of nn.init")
            values = shape.numpy().copy()
            shape, init, dtype = values.shape, lambda generator, shape: values, dtype or values.dtype
        elif init is None:
            raise TypeError(f"{type(self).__name__} needs a tensor, or a shape and a recipe of nn.init, not {shape!r}")
        kernels = _kernels.for_device(default_device())
        super().__init__(kernels.empty(tuple(shape), dtype_of(dtype or float32)))
        self.init, self.shard, self.name = init, shard, ""
        if self.device != "meta":
            self.materialize(random.default_generator())

    def materialize(self, generator: np.random.Generator, dtype=None) -> None:
        """Draw the values on the CPU: the whole from `generator`, then this rank's part of it."""
        whole_shape = self.shape if self.shard is None else self.shard.whole_shape(self.shape)
        values = self.init(generator, whole_shape)
        self.set_whole(values, dtype or self.dtype)

    def set_whole(self, values: np.ndarray, dtype=None) -> None:
        """Take this rank's part of the whole `values`."""
        part = values if self.shard is None else self.shard.cut(values)
        if part.shape != self.shape:
            raise ValueError(f"{self.name or 'a parameter'} has shape {self.shape}, the values given {part.shape}")
        self.data = _kernels.for_device("cpu").array(part, dtype or self.dtype)

    def __getstate__(self) -> dict:
        """What is copied and pickled: the recipe, often a closure, only while there are no values."""
        state = super().__getstate__()
        return state if self.device == "meta" else state | {"init": None}


class Buffer(Stored):
    """A tensor that belongs to a model and is no parameter: a running mean, say."""

    __slots__ = ()


class Parameter(Stored):
    """A tensor that training changes: `Parameter(tensor)`, or `Parameter(shape, init=recipe)`.

    gradient_buffer: an array in which the gradient must lie (in shared memory, say), None for anywhere.
    updated_here: which of its elements, flat, the optimizer of this rank updates, others the rest; None for all.
    """

    __slots__ = ("gradient_buffer", "updated_here")

    def __init__(
        self, shape, requires_grad: bool = True, *, init: Recipe | None = None, shard: Shard | None = None, dtype=None
    ):
        if not isinstance(requires_grad, bool):
            raise TypeError(f"Parameter: requires_grad={requires_grad!r} is no bool; say init=… for a recipe")
        super().__init__(shape, init=init, shard=shard, dtype=dtype)
        self.requires_grad_(requires_grad)
        self.gradient_buffer, self.updated_here = None, None

    def gradient_destination(self):
        return self.gradient_buffer if self.grad is None else None

    def accumulate_grad(self, grad, owned: bool) -> None:
        if self.grad is None and self.gradient_buffer is not None:
            if grad is not self.gradient_buffer:
                self.kernels.assign(self.gradient_buffer, grad)
            self.grad = Tensor(self.gradient_buffer)
        else:
            super().accumulate_grad(grad, owned)
