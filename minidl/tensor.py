"""Tensor: an array that knows how it was made, and so can be differentiated.

    x = minidl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = (x @ w + b).sum()
    y.backward()                                    # x.grad is now dy/dx

Each operation on tensors is an `Op` (op.py). If one of its inputs requires a gradient it becomes the result's `node`,
and holds the nodes of its inputs:

    y.node = Sum  ->  Add  ->  MatMul  ->  x.node = Leaf

These links are the tape. `backward` walks them from the result to the leaves (tape.py), where each op brings the
gradient of its result back to its inputs. What the operators compute, and their derivatives, is in `ops/`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import kernels as _kernels
from minidl.dtypes import bool_, float32, int64
from minidl.grad_mode import set_grad_enabled
from minidl.hooks import RemovableHandle
from minidl.tape import Leaf, run_backward

if TYPE_CHECKING:
    from minidl.op import Op


class Tensor:
    """An array that can be differentiated, made by `minidl.tensor`, `minidl.zeros` and so on, or by an op.

    data: the array of its device. grad: the gradient of a leaf, a Tensor, or None. node: its place on the tape, the Op
    that made it or a Leaf; None if it requires no gradient.
    """

    __slots__ = ("data", "grad", "node", "__weakref__")

    def __init__(self, data, requires_grad: bool = False):
        self.data = data
        self.grad: Tensor | None = None
        self.node: Op | Leaf | None = Leaf(self) if requires_grad else None

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add to `grad` of every leaf the derivative of this tensor, weighted by `gradient` (1 for a scalar).

        The tape is consumed: arrays saved for backward are freed as they are used, unless `retain_graph`. create_graph:
        the gradients are on a tape themselves (and the tape is retained). RuntimeError: it requires no gradient, is no
        scalar and has no `gradient`, its tape was consumed, or what the tape needs was changed in place.
        """
        root = backward_root("backward()", self, gradient, create_graph)
        with set_grad_enabled(create_graph):
            run_backward([root], bool(retain_graph), create_graph)

    if TYPE_CHECKING:
        # The operators, and methods such as x.sum(), are functions of `ops`: ops/tensor_methods.py puts them here.

        def __add__(self, other: Any) -> Tensor: ...  # x + y, and below: ops/arithmetic.py

        __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __add__
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __add__

        def __neg__(self) -> Tensor: ...
        def __matmul__(self, other: Tensor) -> Tensor: ...  # x @ y: ops/matmul.py
        def __getitem__(self, key: Any) -> Tensor: ...  # x[i, :, mask]: ops/indexing.py
        def __setitem__(self, key: Any, value: Any) -> None: ...  # ops/in_place.py, as x += y

        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __add__  # ops/comparison.py
        __and__ = __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = __add__
        __abs__ = __invert__ = __neg__

        def __iter__(self) -> Iterator[Tensor]: ...
        def __getattr__(self, name: str) -> Any: ...  # the methods

    # On the tape

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    @property
    def op(self) -> Op | None:
        """The op that made this tensor; None for a leaf and for what requires no gradient."""
        return None if self.node is None or type(self.node) is Leaf else self.node

    @property
    def is_leaf(self) -> bool:
        return self.op is None

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

    def detach(self) -> Tensor:
        """The same data, off the tape."""
        return Tensor(self.data)

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

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(gradient)` once this tensor's gradient is complete; what it gives, unless None, replaces it."""
        node = self.node
        if node is None:
            raise RuntimeError("a hook needs a tensor that requires a gradient")

        def on_gradient(grad):  # an array, or a tensor if the backward is recorded
            found = hook(grad if isinstance(grad, Tensor) else Tensor(grad))
            if found is None:
                return grad
            if not isinstance(found, Tensor):
                raise TypeError(f"a hook must give a tensor or None, not {type(found).__name__}")
            return found if isinstance(grad, Tensor) else found.data

        def remove():
            node.hooks = tuple(h for h in node.hooks if h is not on_gradient)

        node.hooks = (*node.hooks, on_gradient)
        return RemovableHandle(remove)

    def retain_grad(self) -> None:
        """Give this tensor, the result of an op, its `grad` too when backward runs."""
        if self.op is None:
            return
        here = weakref.ref(self)

        def keep(gradient: Tensor) -> None:
            tensor = here()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

        self.register_hook(keep)

    # The array

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


def backward_root(name: str, x: Tensor, gradient: Tensor | None, graph: bool) -> tuple[Op | Leaf, Any]:
    """Where `name` starts to walk the tape: the node of `x` and its gradient, an array, or a tensor if `graph`."""
    if x.node is None:
        raise RuntimeError(f"{name} needs a tensor that requires a gradient: none of its inputs does")
    if gradient is None:
        if x.numel() != 1:
            raise RuntimeError(f"{name} of a tensor of shape {x.shape} needs gradient=, only a scalar has none")
        gradient = Tensor(x.kernels.full(x.shape, 1, x.dtype))
    elif gradient.device != x.device:
        raise ValueError(f"gradient is on {gradient.device}, the tensor on {x.device}")
    elif gradient.shape != x.shape:
        raise ValueError(f"gradient has shape {gradient.shape}, the tensor {x.shape}")
    return x.node, gradient if graph else gradient.data
