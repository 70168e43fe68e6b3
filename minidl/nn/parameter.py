"""Parameters, which an optimizer changes, and Buffers, which forward changes: a rank may hold a part of them."""

from __future__ import annotations

import numpy as np

from minidl import kernels as _kernels
from minidl import random
from minidl.creation import default_device
from minidl.dtypes import dtype_of, float32
from minidl.nn.cut import Cut
from minidl.nn.init import Recipe
from minidl.tensor import Tensor


class Stored(Tensor):
    """A tensor with a name in `state_dict`, and a recipe that can draw its values anew on whatever rank needs them.

    shape: its shape; or a Cut, the part of a whole that this rank holds; or a tensor, whose values are taken. init: the
    recipe for the whole. cut: the part held, all of it where only a shape was given.
    """

    __slots__ = ("init", "cut", "name")

    def __init__(self, shape: tuple[int, ...] | Cut | Tensor, *, init: Recipe | None = None, dtype=None):
        device = default_device()
        if isinstance(shape, Tensor):
            if shape.device == "meta":
                raise ValueError(f"{type(self).__name__} of a tensor on meta: it needs a shape and a recipe of nn.init")
            if device == "cpu":  # the tensor stays where it is; under another default device it goes there
                device = shape.device
            values = shape.numpy().copy()
            shape, init, dtype = values.shape, lambda generator, shape: values, dtype or values.dtype
        elif init is None:
            raise TypeError(f"{type(self).__name__} needs a tensor, or a shape and a recipe of nn.init, not {shape!r}")
        self.cut = shape if isinstance(shape, Cut) else Cut(tuple(shape))
        kernels = _kernels.for_device(device)
        super().__init__(kernels.empty(self.cut.shape, dtype_of(dtype or float32)))
        self.init, self.name = init, ""
        if self.device != "meta":
            self.materialize(random.default_generator())

    def materialize(self, generator: np.random.Generator, dtype=None) -> None:
        """Draw the values on the CPU: the whole from `generator`, then this rank's part of it, which is moved."""
        self.set_whole(self.init(generator, self.cut.whole), dtype or self.dtype)

    def set_whole(self, values: np.ndarray, dtype=None) -> None:
        """Take this rank's part of the whole `values`."""
        if values.shape != self.cut.whole:
            raise ValueError(
                f"{self.name or 'a parameter'} has shape {self.cut.whole}, the values given {values.shape}"
            )
        kernels = _kernels.for_device("cpu") if self.device == "meta" else self.kernels
        self.data = kernels.array(self.cut.take(values), dtype or self.dtype)

    def move(self, device: str) -> None:
        """Lie on `device` from now on, with the gradient."""
        if device != self.device:
            there = _kernels.for_device(device)
            self.data = there.array(self.kernels.to_numpy(self.data), self.dtype)
            if self.grad is not None:
                self.grad = Tensor(_kernels.beside(self.data, self.grad.data))

    def __getstate__(self) -> dict:
        """What is copied and pickled: the recipe, often a closure, only while there are no values."""
        state = super().__getstate__()
        return state if self.device == "meta" else state | {"init": None}


class Buffer(Stored):
    """A tensor that belongs to a model and is no parameter: a running mean, say."""

    __slots__ = ()


class Parameter(Stored):
    """A tensor that training changes: `Parameter(tensor)`, or `Parameter(shape or cut, init=recipe)`.

    gradient_buffer: an array in which the gradient must lie (in shared memory, say), None for anywhere.
    updated: the part that the optimizer of this rank updates and has a state of: `cut`, or some elements of that.
    share: flat arrays in which the values and the gradient of those elements lie; None where that is all of it.
    summed_over: axes of the mesh over which the gradient must be summed though every rank there has the same part: each
    has used it on other data, as on its slice of a sequence.
    """

    __slots__ = ("gradient_buffer", "updated", "share", "summed_over")

    def __init__(
        self,
        shape: tuple[int, ...] | Cut | Tensor,
        requires_grad: bool = True,
        *,
        init: Recipe | None = None,
        dtype=None,
    ):
        if not isinstance(requires_grad, bool):
            raise TypeError(f"Parameter: requires_grad={requires_grad!r} is no bool; say init=… for a recipe")
        super().__init__(shape, init=init, dtype=dtype)
        self.requires_grad_(requires_grad)
        self.gradient_buffer, self.updated, self.share, self.summed_over = None, self.cut, None, ()

    @property
    def updated_values(self):
        """The values that are updated here, flat."""
        return self.kernels.reshape(self.data, (-1,)) if self.share is None else self.share[0]

    @property
    def updated_gradient(self):
        """The gradient of these values, flat."""
        return self.kernels.reshape(self.grad.data, (-1,)) if self.share is None else self.share[1]

    def gradient_destination(self):
        return self.gradient_buffer if self.grad is None else None

    def accumulate_grad(self, grad, owned: bool) -> None:
        if self.grad is None and self.gradient_buffer is not None:
            if grad is not self.gradient_buffer:
                self.kernels.assign(self.gradient_buffer, grad)
            self.grad = Tensor(self.gradient_buffer)
        else:
            super().accumulate_grad(grad, owned)
