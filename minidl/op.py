"""Op: one step of a computation, with its derivative; calling it on tensors records it on the tape.

This file knows no mathematics: that is in `ops/`, one family a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl import double_backward, grad_mode
from minidl.kernels import BY_ARRAY
from minidl.mutation import tick
from minidl.tape import Leaf
from minidl.tensor import Tensor


class Op:
    """One step of a computation, with its derivative.

    A subclass writes `forward(*arrays) -> array` and `backward(grad) -> one gradient per input` (None where an input
    has none), both on `self.kernels` and on arrays, never on tensors. Options are arguments of `__init__`;
    `self.needs[i]` tells both whether input i wants its gradient.

        class Cube(Op):
            def forward(self, x):
                self.x = x
                return self.kernels.power(x, 3)

            def backward(self, grad):
                k = self.kernels
                return k.multiply(grad, k.multiply(k.power(self.x, 2), 3))

        y = Cube()(x)

    What backward needs, forward saves on `self`: an input under the name of its parameter, its result as `self.y`. So a
    backward that is itself to be differentiated (`create_graph=True`) finds the tensors they belong to: `self.kernels`
    are then functions of tensors, `grad` and what was saved are tensors. A float array computed on the way may be saved
    too, if a method `recompute_saved(self)` makes it anew from the rest.
    """

    passes_gradient = False  # backward may hand on `grad` itself or a view of it, not a new array
    one_dtype = True  # all inputs must have the same dtype
    once_differentiable = ""  # why its backward cannot be differentiated, if so
    splits_backward = False  # backward finds each gradient by itself: called for some, then the rest, it works no more

    # On the tape; a tape that was walked has no `parents` any more.
    parents: list[Op | Leaf | None] | None = None  # the nodes of the inputs, None for one that wants no gradient
    order = 0  # the later recorded, the smaller; leaves come after all ops
    hooks: tuple = ()  # functions of the gradient of its result, an array or a tensor, which give one
    kernels: Any = None
    retained = False  # the tape is to be walked again: backward must not write to what forward saved

    def __call__(self, *inputs: Tensor) -> Tensor:
        arrays, parents = [], []
        for x in inputs:
            arrays.append(x.data)
            parents.append(x.node)
        if len(arrays) > 1:
            kind, dtype = type(arrays[0]), arrays[0].dtype
            for array in arrays:
                if type(array) is not kind or (self.one_dtype and array.dtype != dtype):
                    raise mixed_inputs(type(self).__name__, inputs)
        self.kernels = kernels = BY_ARRAY[type(arrays[0])]
        self.needs = parents if grad_mode.enabled else [None] * len(parents)
        data = self.forward(*arrays)
        out = Tensor(data if data.shape else BY_ARRAY.get(type(data), kernels).from_scalar(data))
        if grad_mode.enabled and any(parents):
            self.parents, self.order = parents, -tick()
            out.node = self
        return out

    def forward(self, *arrays):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad):
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def recompute_saved(self) -> None:
        """Make anew, from the saved inputs and result, the float arrays that forward computed on the way and saved."""

    def destination(self, i: int):
        """An array in which backward may write the gradient of input i, instead of a new one; None without one."""
        return self.parents[i].gradient_destination()

    def gradient_destination(self):
        return None

    def on_tensors(self) -> Op:
        """A copy whose backward runs on tensors, and so is on the tape itself."""
        return double_backward.on_tensors(self)


def mixed_inputs(name: str, inputs: Sequence[Tensor]) -> Exception:
    """The error of the operation `name` for inputs on several devices or of several dtypes."""
    if len({x.device for x in inputs}) > 1:
        return ValueError(f"{name} needs its inputs on one device, they are on {', '.join(x.device for x in inputs)}")
    dtypes = ", ".join(str(x.dtype) for x in inputs)
    return TypeError(f"{name} needs inputs of one dtype, these have {dtypes}: convert with .to(dtype)")
