"""Tensor, Op, and the tape they make.

This file knows no mathematics. An `Op` is one step of a computation: it knows how to go forward and how to bring a
gradient back. Calling an op on tensors that require a gradient links it to the nodes that made its inputs: other ops,
or leaves. These links are the tape; `autograd.py` walks them from a result to the leaves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import kernels as _kernels

BY_ARRAY = _kernels.BY_ARRAY
DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int64", "bool")}
float32, float64, int64, bool_ = DTYPES.values()

_grad_enabled = True
_default_device = "cpu"
tick = count(1).__next__  # numbers every node of a tape, and every change in place


@contextmanager
def no_grad() -> Iterator[None]:
    """Record no tape inside the `with` block, or in the function that it decorates."""
    with set_grad_enabled(False):
        yield


@contextmanager
def enable_grad() -> Iterator[None]:
    """Record a tape inside the `with` block, even within `no_grad()`."""
    with set_grad_enabled(True):
        yield


class set_grad_enabled:
    """Record a tape from now on, or not: until the end of the `with` block, or in the function that it decorates."""

    def __init__(self, enabled: bool):
        global _grad_enabled
        self.enabled, self.before = enabled, _grad_enabled
        _grad_enabled = enabled

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error) -> None:
        global _grad_enabled
        _grad_enabled = self.before

    def __call__(self, function: Callable) -> Callable:
        self.__exit__()

        @wraps(function)
        def decorated(*args, **options):
            with set_grad_enabled(self.enabled):
                return function(*args, **options)

        return decorated


def is_grad_enabled() -> bool:
    """Whether a tape is recorded now."""
    return _grad_enabled


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
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{dtype!r} is no dtype: use {', '.join(DTYPES)}") from None
    if found.name not in DTYPES:
        raise ValueError(f"dtype {found.name} is not supported: use {', '.join(DTYPES)}")
    return found


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

    What backward needs, forward keeps on `self`: an input under the name of its parameter, its result as `self.y`. So a
    backward that is itself to be differentiated finds the tensors they belong to: `self.kernels` are then functions
    of tensors, `grad` and what was kept are tensors. A float array computed on the way may be kept
    too, if a method `again(self)` makes it anew from the rest.
    """

    passes_gradient = False  # backward may hand on `grad` itself or a view of it, not a new array
    one_dtype = True  # all inputs must have the same dtype
    once = ""  # why its backward cannot be differentiated, if so
    splits = False  # backward finds each gradient by itself: called for some, then for the rest, it does no more work

    # On the tape; a tape that was walked has no `parents` any more.
    parents: list[Op | Leaf | None] | None = None  # the nodes of the inputs, None for one that wants no gradient
    order = 0  # the later recorded, the smaller; leaves come after all ops
    hooks: tuple = ()
    kernels: Any = None
    kept = False  # the tape is to be walked again: backward must not write to what forward kept

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
        self.needs = parents if _grad_enabled else [None] * len(parents)
        data = self.forward(*arrays)
        out = Tensor(data if data.shape else BY_ARRAY.get(type(data), kernels).from_scalar(data))
        if _grad_enabled and any(parents):
            self.parents, self.order = parents, -tick()
            out.node = self
        return out

    def forward(self, *arrays):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad):
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def again(self) -> None:
        """Make anew, from the kept inputs and result, the float arrays that forward computed on the way and kept."""

    def destination(self, i: int):
        """An array in which backward may write the gradient of input i, instead of a new one; None without one."""
        return self.parents[i].gradient_destination()

    def gradient_destination(self):
        return None


class Leaf:
    """Where the tape ends: hands its tensor the gradient, if that still exists."""

    hooks: tuple = ()

    def __init__(self, tensor: Tensor):
        self.tensor = weakref.ref(tensor)  # the tensor holds the leaf: a circle would keep both from being freed
        self.order = tick()
        self.lent = False  # a backward has already written to the destination

    def gradient_destination(self):
        tensor = self.tensor()
        if tensor is None or self.lent or self.hooks:
            return None
        self.lent = True
        return tensor.gradient_destination()


def mixed_inputs(name: str, inputs: Sequence[Tensor]) -> Exception:
    """The error of the operation `name` for inputs on several devices or of several dtypes."""
    if len({x.device for x in inputs}) > 1:
        return ValueError(f"{name} needs its inputs on one device, they are on {', '.join(x.device for x in inputs)}")
    dtypes = ", ".join(str(x.dtype) for x in inputs)
    return TypeError(f"{name} needs inputs of one dtype, these have {dtypes}: convert with .to(dtype)")


class Tensor:
    """An array that can be differentiated, made by `minidl.tensor`, `minidl.zeros` and so on, or by an op.

    data: the array of its device. grad: the gradient of a leaf, a Tensor, or None. node: its place on the tape, the Op
    that made it or a Leaf; None if it requires no gradient. Operators and methods are those of `ops/methods.py`,
    `backward` and hooks those of `autograd.py`.
    """

    __slots__ = ("data", "grad", "node", "__weakref__")

    if TYPE_CHECKING:  # what ops and autograd put here

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __neg__(self) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...

        __abs__ = __invert__ = __neg__
        __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = __add__
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __add__
        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __add__
        __and__ = __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = __add__

    def __init__(self, data, requires_grad: bool = False):
        self.data = data
        self.grad: Tensor | None = None
        self.node: Op | Leaf | None = Leaf(self) if requires_grad else None

    @property
    def op(self) -> Op | None:
        """The op that made this tensor; None for a leaf and for what requires no gradient."""
        return self.node if isinstance(self.node, Op) else None

    @property
    def is_leaf(self) -> bool:
        return self.op is None

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    @property
    def kernels(self):
        return _kernels.BY_ARRAY[type(self.data)]

    @property
    def device(self) -> str:
        return self.kernels.DEVICE

    @property
    def is_cuda(self) -> bool:
        """Whether the tensor is on a GPU."""
        return self.device == "cuda"

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
        """The values as a NumPy array that shares memory with this tensor; of one on a GPU a copy."""
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
        """Make this tensor a leaf that gets a gradient, or not; RuntimeError for integers and results of ops."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only a tensor of floats can require a gradient, not one of dtype {self.dtype}")
        if self.op is not None:
            if not requires_grad:
                raise RuntimeError("the result of an op cannot be made to require no gradient: use .detach()")
        elif requires_grad != self.requires_grad:
            self.node = Leaf(self) if requires_grad else None
        return self

    def accumulate_grad(self, grad, owned: bool) -> None:
        """Add the array `grad` to this leaf's gradient; unless `owned`, others may hold it and it must be copied."""
        kernels = self.kernels
        if grad.shape != self.data.shape:
            raise RuntimeError(f"a backward gave a gradient of shape {grad.shape} to a tensor of shape {self.shape}")
        if self.grad is None:
            self.grad = Tensor(kernels.from_scalar(grad) if owned else kernels.copy(kernels.from_scalar(grad)))
        elif self.grad.kernels is not kernels:
            raise ValueError(f"grad is on {self.grad.device}, the tensor on {self.device}")
        else:
            kernels.accumulate(self.grad.data, grad)

    def gradient_destination(self):
        """The array in which the gradient of this leaf may be written, if it has none yet; None for a new one."""
        return None

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
        device = "" if self.device == "cpu" else f", device={self.device!r}"
        if self.device == "meta":
            return f"tensor(shape={self.shape}, dtype={self.dtype}{device}{gradient})"
        values = np.array2string(self.numpy(), separator=", ", precision=4, prefix="tensor(")
        dtype = "" if self.dtype in (float32, int64, bool_) else f", dtype={self.dtype}"
        return f"tensor({values}{dtype}{device}{gradient})"

    def __getstate__(self) -> dict:
        if self.op is not None:
            raise RuntimeError("only a leaf can be copied or pickled, not the result of an op: detach() it first")
        names = (name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ()))
        state = {name: getattr(self, name) for name in names if name not in ("node", "__weakref__")}
        if self.device not in ("cpu", "meta"):  # memory of the GPU is this process's own
            state |= {"data": self.numpy(), "device": self.device}
        return state | {"requires_grad": self.requires_grad}

    def __setstate__(self, state: dict) -> None:
        self.node = Leaf(self) if state.pop("requires_grad") else None
        if device := state.pop("device", None):
            state["data"] = _kernels.for_device(device).array(state["data"], state["data"].dtype)
        for name, value in state.items():
            setattr(self, name, value)
