"""Tensor, and the tape that differentiates it.

This file knows no mathematics. An `Op` is one step of a computation: it knows how to go forward and how to bring a
gradient back. Calling an op on tensors that require a gradient links it to the ops that made its inputs; these links
are the tape, and `backward()` walks them from the result to the leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from minidl import kernels as _kernels

DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int64", "bool")}
float32, float64, int64, bool_ = DTYPES.values()

_grad_enabled = True
_default_device = "cpu"


@contextmanager
def no_grad() -> Iterator[None]:
    """Record no tape inside the `with` block."""
    global _grad_enabled
    before, _grad_enabled = _grad_enabled, False
    try:
        yield
    finally:
        _grad_enabled = before


@contextmanager
def device(name: str) -> Iterator[None]:
    """Make new tensors on the device `name` inside the `with` block."""
    global _default_device
    _kernels.for_device(name)
    before, _default_device = _default_device, name
    try:
        yield
    finally:
        _default_device = before


def default_device() -> str:
    return _default_device


def dtype_of(dtype) -> np.dtype:
    """The NumPy dtype meant by a name, a NumPy type or a Python type; ValueError for one that minidl does not have."""
    found = np.dtype(dtype)
    if found.name not in DTYPES:
        raise ValueError(f"dtype {found.name} is not supported: use {', '.join(DTYPES)}")
    return found


class Op:
    """One step of a computation, with its derivative.

    A subclass writes `forward(*arrays) -> array` and `backward(grad) -> one gradient per input` (None where an input
    has none), both on `self.kernels` and on arrays, never on tensors; what backward needs, forward keeps on `self`.
    Options are arguments of `__init__`; `self.needs[i]` tells both whether input i wants its gradient.
    """

    passes_gradient = False  # backward may hand on `grad` itself or a view of it, not a new array
    one_dtype = True  # all inputs must have the same dtype

    def __call__(self, *inputs: Tensor) -> Tensor:
        arrays = [x.data for x in inputs]
        kind = type(arrays[0])
        if len(arrays) > 1:
            dtype = arrays[0].dtype
            for array in arrays:
                if type(array) is not kind or (array.dtype != dtype and self.one_dtype):
                    raise _mixed(self, inputs)
        self.kernels = _kernels.BY_ARRAY[kind]
        self.needs = needs = [x.requires_grad and _grad_enabled for x in inputs]
        out = Tensor(self.forward(*arrays))
        if True in needs:
            # A leaf is linked itself; for any other tensor its op is, so that the tape keeps no array that no backward
            # needs.
            self.parents = [(x.op or x) if x.requires_grad else None for x in inputs]
            self.grad = None  # the gradient with respect to the result, while backward runs
            self.waiting = 0  # how many consumers have not contributed to it yet
            out.op = self
            out.requires_grad = True
        return out

    def forward(self, *arrays):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad):
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def destination(self, i: int):
        """An array in which backward may write the gradient of input i, instead of a new one; None without one."""
        parent = self.parents[i]
        return parent.gradient_destination() if isinstance(parent, Tensor) else None


def _mixed(op: Op, inputs: Sequence[Tensor]) -> Exception:
    """The error for inputs on several devices or of several dtypes."""
    name = type(op).__name__
    if len({x.device for x in inputs}) > 1:
        return ValueError(f"{name} needs its inputs on one device, they are on {', '.join(x.device for x in inputs)}")
    dtypes = ", ".join(str(x.dtype) for x in inputs)
    return TypeError(f"{name} needs inputs of one dtype, these have {dtypes}: convert with .to(dtype)")


class Tensor:
    """An array that can be differentiated, made by `minidl.tensor`, `minidl.zeros` and so on, or by an op.

    data: the array of its device. grad: the gradient of a leaf, a Tensor, or None. op: the Op that made it, or None.
    """

    __slots__ = ("data", "grad", "requires_grad", "op", "__weakref__")

    def __init__(self, data, requires_grad: bool = False):
        self.data = data
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad
        self.op: Op | None = None

    @property
    def kernels(self):
        return _kernels.BY_ARRAY[type(self.data)]

    @property
    def device(self) -> str:
        return self.kernels.DEVICE

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def numel(self) -> int:
        return self.data.size

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array that shares memory with this tensor."""
        return self.kernels.to_numpy(self.data)

    def __array__(self, dtype=None, copy: bool | None = None) -> np.ndarray:
        """What `np.asarray(tensor)` gives: the values, shared unless a dtype or `copy` asks for others."""
        return np.array(self.numpy(), dtype, copy=copy)

    def item(self) -> float:
        """The value of a tensor with one element, as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor with one element, this one has shape {self.shape}")
        return self.numpy().item()

    def detach(self) -> Tensor:
        """The same data, off the tape."""
        return Tensor(self.data)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make this tensor a leaf that gets a gradient, or not; RuntimeError if it is to and has no floats."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only a tensor of floats can require a gradient, not one of dtype {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def accumulate_grad(self, grad, owned: bool) -> None:
        """Add the array `grad` to this leaf's gradient; unless `owned`, others may hold it and it must be copied."""
        if self.grad is None:
            self.grad = Tensor(grad if owned else self.kernels.copy(grad))
        else:
            self.kernels.accumulate(self.grad.data, grad)

    def gradient_destination(self):
        """The array in which the gradient of this leaf may be written, if it has none yet; None for a new one."""
        return None

    def backward(self, gradient: Tensor | None = None) -> None:
        """Add to `grad` of every leaf the derivative of this tensor, weighted by `gradient` (1 for a scalar).

        The tape is consumed: arrays kept for backward are freed as they are used.
        """
        if not self.requires_grad:
            raise RuntimeError("backward() needs a tensor that requires a gradient: none of its inputs does")
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() of a tensor of shape {self.shape} needs gradient=, only a scalar has none"
                )
            gradient = Tensor(self.kernels.full(self.shape, 1, self.dtype))
        elif gradient.shape != self.shape:
            raise ValueError(f"gradient has shape {gradient.shape}, the tensor {self.shape}")
        if self.op is None:
            self.accumulate_grad(gradient.data, owned=False)
        else:
            run_backward(self.op, gradient.data)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.item())

    def __repr__(self) -> str:
        gradient = ", requires_grad=True" if self.requires_grad else ""
        if self.device != "cpu":
            return f"tensor(shape={self.shape}, dtype={self.dtype}, device={self.device!r}{gradient})"
        values = np.array2string(self.data, separator=", ", precision=4, prefix="tensor(")
        dtype = "" if self.dtype in (float32, int64, bool_) else f", dtype={self.dtype}"
        return f"tensor({values}{dtype}{gradient})"


def _freed() -> Exception:
    return RuntimeError("backward() a second time through the same tape: its arrays are freed, run forward again")


def run_backward(root: Op, grad) -> None:
    """Walk the tape from `root`, whose result has the gradient `grad`, in topological order.

    An op runs once every consumer of its result has contributed.
    Running it earlier would send an incomplete gradient on, and the part that comes later would be lost.
    """
    if root.parents is None:
        raise _freed()
    ops, found = [root], 0
    root.waiting = 1
    while found < len(ops):  # count the consumers of every op, without recursion: a tape may be 100,000 ops long
        parents = ops[found].parents
        found += 1
        for parent in parents:
            if isinstance(parent, Op):
                if parent.parents is None:
                    for op in ops:  # the ops that are not freed can still go backward for another result
                        op.waiting = 0
                    raise _freed()
                if parent.waiting == 0:
                    ops.append(parent)
                parent.waiting += 1
    ops.clear()

    root.grad, root.waiting = grad, 0
    ready = [root]
    while ready:
        op = ready.pop()
        grads = op.backward(op.grad) if op.grad is not None else (None,) * len(op.parents)
        if not isinstance(grads, tuple):
            grads = (grads,)
        parents, kernels, owned = op.parents, op.kernels, not op.passes_gradient
        op.__dict__.clear()  # frees the arrays it kept
        op.parents = None
        for parent, g in zip(parents, grads, strict=True):
            if parent is None:
                continue
            if isinstance(parent, Tensor):
                if g is not None:
                    parent.accumulate_grad(g, owned)
                continue
            if g is not None:
                parent.grad = g if parent.grad is None else kernels.add(parent.grad, g)
            parent.waiting -= 1
            if parent.waiting == 0:
                ready.append(parent)


def tape(root: Op) -> list[Op]:
    """The ops that lead to `root`, each once, `root` first."""
    ops, seen = [root], {id(root)}
    for op in ops:
        for parent in op.parents or ():
            if isinstance(parent, Op) and id(parent) not in seen:
                seen.add(id(parent))
                ops.append(parent)
    return ops
