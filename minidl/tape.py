"""The tape: how each tensor was made; and `run_backward`, the walk over it that brings gradients back.

A node of the tape is an `Op` (op.py), linked to the nodes of its inputs by its `parents`, or a `Leaf`, where the tape
ends: at a tensor that no op made, such as a parameter.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from minidl import mutation
from minidl.kernels import BY_ARRAY
from minidl.mutation import tick

if TYPE_CHECKING:
    from minidl.op import Op
    from minidl.tensor import Tensor


def run_backward(
    roots: Iterable[tuple[Op | Leaf, Any]], keep: bool = False, graph: bool = False, wanted: dict | None = None
) -> None:
    """Walk the tape from `roots`, nodes with the gradient of their result: arrays, or tensors if `graph`.

    A node's turn comes when every op that used its result has added its part to the gradient: sooner, an incomplete
    gradient would be sent on. An op is always recorded later than the ops whose results it uses. So the order is
    topological if the latest recorded op goes first, and leaves last.

    keep: leave the tape as it is, so that it can be walked again; otherwise arrays are freed as they are used.
    graph: record what is done on the tape, so that the gradients can be differentiated themselves.
    wanted: nodes; their gradients are put there, and no leaf gets one.
    """
    pending = total_by_node(roots)  # gradients of nodes whose turn is still to come
    shared = set(pending)  # leaves must copy these nodes' gradients: others may hold them too
    ready = [(node.order, node) for node in pending]
    heapify(ready)
    while ready:
        node = heappop(ready)[1]
        grad = pending.pop(node)
        if node.hooks:
            grad = through_hooks(node, grad)
            shared.add(node)
        if wanted is not None and node in wanted:
            wanted[node] = grad
        if type(node) is Leaf:
            if wanted is None:
                node.accumulate(grad, node not in shared, graph)
            continue
        parents, kernels, passes_gradient = node.parents, node.kernels, node.passes_gradient
        for parent, g in zip(parents, input_gradients(node, grad, keep, graph)):  # noqa: B905  its lengths are checked
            if parent is None or g is None:
                continue
            if parent in pending:
                pending[parent] = pending[parent] + g if graph else kernels.add(pending[parent], g)
                shared.discard(parent)
            else:
                pending[parent] = g
                heappush(ready, (parent.order, parent))
                if passes_gradient and type(parent) is Leaf:
                    shared.add(parent)


def through_hooks(node: Op | Leaf, grad):
    """The gradient that the node's hooks, one after the other, make of `grad`."""
    for hook in node.hooks:
        grad = hook(grad)
    return grad


def input_gradients(op: Op, grad, keep: bool = False, graph: bool = False) -> tuple:
    """The gradient of each input of `op`, from that of its result. What the op saved is freed unless `keep` or `graph`.

    RuntimeError: it was freed before, or changed in place, or `op.backward` does not fit the op's inputs.
    """
    parents = op.parents
    if parents is None or mutation.newest > -op.order:
        _refuse_freed_or_changed(op)
    if graph:
        grads = op.on_tensors().backward(grad)
    else:
        if keep:
            op.retained = True
        grads = op.backward(grad)
        if not keep:
            op.__dict__.clear()
    if not isinstance(grads, tuple):
        grads = (grads,)
    if len(grads) != len(parents):
        raise RuntimeError(f"{type(op).__name__}: {len(parents)} inputs, but backward gave {len(grads)} gradients")
    return grads


def _refuse_freed_or_changed(op: Op) -> None:
    if op.parents is None:
        raise RuntimeError(
            "backward() a second time through the same tape: its arrays are freed; run forward again, or say "
            "retain_graph=True the first time"
        )
    mutation.refuse_changed(op)


def total_by_node(gradients: Iterable[tuple[Op | Leaf, Any]]) -> dict[Op | Leaf, Any]:
    """The sum of the gradients, arrays or tensors, that are given for each node."""
    totals: dict[Op | Leaf, Any] = {}
    for node, grad in gradients:
        if node not in totals:
            totals[node] = grad
        elif kernels := BY_ARRAY.get(type(grad)):
            totals[node] = kernels.add(totals[node], grad)
        else:
            totals[node] = totals[node] + grad
    return totals


class Leaf:
    """Where the tape ends: hands its tensor the gradient, if that still exists."""

    hooks: tuple = ()

    def __init__(self, tensor: Tensor):
        self.tensor = weakref.ref(tensor)  # the tensor holds the leaf: a circle would keep both from being freed
        self.order = tick()
        self.lent = False  # a backward has already written to the destination

    def accumulate(self, grad, owned: bool, graph: bool = False) -> None:
        """Add the gradient, an array, or a tensor if `graph`, to that of the tensor."""
        tensor, self.lent = self.tensor(), False
        if tensor is None:
            return
        if graph:
            tensor.grad = grad if tensor.grad is None else tensor.grad + grad
        else:
            tensor.accumulate_grad(grad, owned)

    def gradient_destination(self):
        tensor = self.tensor()
        if tensor is None or self.lent or self.hooks:
            return None
        self.lent = True
        return tensor.gradient_destination()


def recorded_ops(roots: Iterable[Op]) -> list[Op]:
    """The ops of the tape that leads to `roots`, each once, the roots first."""
    ops = list({id(root): root for root in roots}.values())
    seen = set(map(id, ops))
    for op in ops:
        for parent in op.parents or ():
            if type(parent) is not Leaf and parent is not None and id(parent) not in seen:
                seen.add(id(parent))
                ops.append(parent)
    return ops
