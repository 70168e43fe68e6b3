"""Walking the tape: `backward`, `grad`, hooks; and what must not change before it is walked.

An op runs once every consumer of its result has contributed to its gradient; running it earlier would send an
incomplete gradient on. A consumer is always recorded later than what it consumes, so the ops run in the reverse of the
order in which they were recorded, and leaves come last.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from heapq import heappop, heappush
from typing import Literal, overload

import numpy as np

from minidl import kernels as _kernels
from minidl.taped import taped_kernels
from minidl.tensor import Leaf, Op, Tensor, set_grad_enabled, tick


def run_backward(
    roots: Iterable[tuple[Op | Leaf, object]], keep=False, graph=False, wanted: dict | None = None
) -> None:
    """Walk the tape from `roots`, nodes with the gradient of their result: arrays, or tensors if `graph`.

    keep: leave the tape as it is, so that it can be walked again; otherwise arrays are freed as they are used.
    graph: record what is done on the tape, so that the gradients can be differentiated themselves.
    wanted: nodes; their gradients are put there, and no leaf gets one.
    """
    pending: dict[Op | Leaf, object] = {}  # gradients of nodes that still wait, for themselves or for consumers
    borrowed: set[Op | Leaf | None] = set()  # nodes whose pending gradient someone else may hold too
    ready: list[tuple[int, Op | Leaf]] = []
    for node, grad in roots:
        if node in pending:
            pending[node] = pending[node] + grad if graph else _kernels.for_array(grad).add(pending[node], grad)
        else:
            pending[node] = grad
            borrowed.add(node)
            heappush(ready, (node.order, node))
    while ready:
        node = heappop(ready)[1]
        grad = pending.pop(node)
        if node.hooks:
            grad = hooked(node.hooks, grad, graph)
            borrowed.add(node)
        if wanted is not None and node in wanted:
            wanted[node] = grad
        if type(node) is Leaf:
            if wanted is None:
                to_leaf(node, grad, node not in borrowed, graph)
            continue
        parents, kernels = node.parents, node.kernels
        if parents is None:
            raise RuntimeError(
                "backward() a second time through the same tape: its arrays are freed; run forward again, or say "
                "retain_graph=True the first time"
            )
        if _newest_change > -node.order:
            refuse_changed(node)
        if graph:
            node = _lift(node)
            kernels = node.kernels
        elif keep:
            node.kept = True
        grads = node.backward(grad)
        if not isinstance(grads, tuple):
            grads = (grads,)
        passes = node.passes_gradient
        if not (keep or graph):
            node.__dict__.clear()  # frees the arrays it kept
        if len(grads) != len(parents):
            raise RuntimeError(
                f"{type(node).__name__}: {len(parents)} inputs, but backward gave {len(grads)} gradients"
            )
        for parent, g in zip(parents, grads):  # noqa: B905  strict= costs a twentieth of a small op
            if parent is None or g is None:
                continue
            if parent in pending:
                pending[parent] = kernels.add(pending[parent], g)
                borrowed.discard(parent)
            else:
                pending[parent] = g
                heappush(ready, (parent.order, parent))
                if passes:
                    borrowed.add(parent)


def to_leaf(leaf: Leaf, grad, owned: bool, graph: bool = False) -> None:
    """Add the gradient to that of the leaf's tensor."""
    tensor, leaf.lent = leaf.tensor(), False
    if tensor is None:
        return
    if graph:
        tensor.grad = grad if tensor.grad is None else tensor.grad + grad
    else:
        tensor.accumulate_grad(grad, owned)


def hooked(hooks: Iterable[Callable], grad, graph: bool = False):
    """The gradient that the hooks, one after the other, make of `grad`."""
    for hook in hooks:
        changed = hook(grad if graph else Tensor(grad))
        if changed is not None:
            if not isinstance(changed, Tensor):
                raise TypeError(f"a hook must give a tensor or None, not {type(changed).__name__}")
            grad = changed if graph else changed.data
    return grad


# Differentiating a backward


@cache
def _input_names(kind: type[Op]) -> dict[str, int]:
    names = list(inspect.signature(kind.forward).parameters)[1:]
    return {name: i for i, name in enumerate(names)}


def _lift(op: Op) -> Op:
    """A copy of `op` on kernels of tensors, which keeps as tensors on the tape what `op` keeps as arrays."""
    if op.once:
        raise NotImplementedError(f"{type(op).__name__} cannot be differentiated twice: {op.once}")
    lifted, inputs = copy.copy(op), _input_names(type(op))
    lifted.kernels = taped_kernels(op.kernels)
    lifted.destination = lambda i: None
    computed = []
    for name, value in vars(op).items():
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if isinstance(value, tuple | list) and any(_is_float_array(x) for x in value):
            computed.append(name)
        elif type(value) in _kernels.BY_ARRAY:
            tensor = Tensor(value)
            if name in inputs:
                tensor.node = op.parents[inputs[name]]
            elif name == "y":
                tensor.node = op
            elif _is_float_array(value):
                computed.append(name)
            setattr(lifted, name, tensor)
    if computed:
        before = {name: vars(lifted)[name] for name in computed}
        lifted.again()
        missing = [name for name in computed if vars(lifted)[name] is before[name]]
        if missing:
            raise RuntimeError(
                f"{type(op).__name__} keeps {', '.join(missing)}: neither an input under the name of forward's "
                "parameter nor the result as y. To be differentiated twice it needs a method again() that computes it"
            )
    return lifted


def _is_float_array(x) -> bool:
    return type(x) in _kernels.BY_ARRAY and x.dtype.kind == "f"


# What is changed in place

_changes: dict[tuple, tuple[weakref.ref, int]] = {}  # where memory was changed: its owner, and when
_newest_change = 0


def changed(array) -> None:
    """Tell the tape that `array` was changed in place: a backward that needs what was there is refused."""
    global _newest_change
    _newest_change = tick()
    owner, start, end = _kernels.for_array(array).extent(array)
    key = id(owner), start, end
    _changes[key] = weakref.ref(owner, lambda _: _changes.pop(key, None)), _newest_change


def refuse_changed(op: Op) -> None:
    """RuntimeError if an array that `op` keeps was changed after the op ran."""
    later = [place for place, (_, time) in _changes.items() if time > -op.order]
    if not later:
        return
    for name, value in vars(op).items():
        for array in value if isinstance(value, tuple | list) else (value,):  # a key has several arrays
            if type(array) not in _kernels.BY_ARRAY:
                continue
            owner, first, last = op.kernels.extent(array)
            if any(id(owner) == changed_owner and first < end and start < last for changed_owner, start, end in later):
                raise RuntimeError(
                    f"{type(op).__name__} needs its {name} of shape {array.shape} to go backward, but it was "
                    "changed in place after the forward: change it later, or a copy of it"
                )


# The front door


def backward(
    x: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add to `grad` of every leaf the derivative of this tensor, weighted by `gradient` (1 for a scalar).

    The tape is consumed: arrays kept for backward are freed as they are used, unless `retain_graph`. create_graph: the
    gradients are on a tape themselves (and the tape is retained). RuntimeError: it requires no gradient, is no scalar
    and has no `gradient`, its tape was consumed, or what the tape needs was changed in place.
    """
    root = _root("backward()", x, gradient, create_graph)
    with set_grad_enabled(create_graph):
        run_backward([root], bool(retain_graph), create_graph)


Tensors = Tensor | Sequence[Tensor]
Weights = Tensor | Sequence[Tensor | None] | None


@overload
def grad(
    outputs: Tensors, inputs: Tensors, grad_outputs: Weights = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: Literal[False] = False,
) -> tuple[Tensor, ...]: ...  # fmt: skip
@overload
def grad(
    outputs: Tensors, inputs: Tensors, grad_outputs: Weights = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]: ...  # fmt: skip
def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Weights = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The derivatives of `outputs`, weighted by `grad_outputs`, with respect to each of `inputs`; no `grad` is changed.

    RuntimeError if an input requires no gradient, or has no part in the outputs: with `allow_unused` its derivative is
    None. The rest as in `backward`.
    """
    outputs, inputs = ([x] if isinstance(x, Tensor) else list(x) for x in (outputs, inputs))
    weights = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outputs))
    if len(weights) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs need as many grad_outputs, not {len(weights)}")
    for i, x in enumerate(inputs):
        if x.node is None:
            raise RuntimeError(f"grad: input {i} does not require a gradient")
    roots = [_root("grad", x, weight, create_graph) for x, weight in zip(outputs, weights, strict=True)]
    wanted = {x.node: None for x in inputs}
    with set_grad_enabled(create_graph):
        run_backward(roots, bool(retain_graph), create_graph, wanted)
    found = [wanted[x.node] for x in inputs]
    if not allow_unused and any(g is None for g in found):
        unused = next(i for i, g in enumerate(found) if g is None)
        raise RuntimeError(f"grad: input {unused} has no part in the outputs; allow_unused=True gives None for it")
    if create_graph:
        return tuple(found)
    return tuple(
        g if g is None else Tensor(g if g.shape else x.kernels.from_scalar(g))
        for x, g in zip(inputs, found, strict=True)
    )


def _root(name: str, x: Tensor, gradient: Tensor | None, graph: bool):
    """The node of `x`, and the gradient to start from: an array, or a tensor if `graph`."""
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


class RemovableHandle:
    """What registering a hook gives: `remove()` takes the hook away."""

    def __init__(self, remove: Callable[[], None]):
        self.remove = remove


def register_hook(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(gradient)` once the gradient of this tensor is complete; what it returns, unless None, replaces it."""
    node = x.node
    if node is None:
        raise RuntimeError("a hook needs a tensor that requires a gradient")
    node.hooks = (*node.hooks, hook)

    def remove():
        node.hooks = tuple(h for h in node.hooks if h is not hook)

    return RemovableHandle(remove)


def retain_grad(x: Tensor) -> None:
    """Give this tensor, the result of an op, its `grad` too when backward runs."""
    if x.op is not None:
        here = weakref.ref(x)

        def keep(gradient):
            tensor = here()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

        register_hook(x, keep)


def tape(roots: Iterable[Op]) -> list[Op]:
    """The ops that lead to `roots`, each once, the roots first."""
    ops = list({id(root): root for root in roots}.values())
    seen = set(map(id, ops))
    for op in ops:
        for parent in op.parents or ():
            if isinstance(parent, Op) and id(parent) not in seen:
                seen.add(id(parent))
                ops.append(parent)
    return ops


Tensor.backward = backward
Tensor.register_hook = register_hook
Tensor.retain_grad = retain_grad
