"""A split backward: the gradient of the input first, those of other leaves, which are parameters, later.

The stage before waits for the one; for the others nobody waits until they are reduced (Qi et al. 2023, "Zero Bubble
Pipeline Parallelism", section 2). Both halves together give the very bits of one backward.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush

from minidl.kernels import for_array
from minidl.mutation import refuse_changed
from minidl.op import Op
from minidl.tape import Leaf, through_hooks, total_by_node

Left = list[tuple[Op | Leaf, object]]  # leaves and their gradients; ops, and the gradient of which they make those


def backward_inputs(roots: Iterable[tuple[Op | Leaf, object]], entries: Collection[Leaf | None]) -> Left:
    """Walk the tape from `roots`, nodes with the gradient of their result; `entries` get theirs, other leaves not yet.

    Returns what `backward_weights` needs. An op that takes other leaves is left for it if it `splits_backward`, or
    takes nothing else; what other ops give to leaves is kept.
    """
    pending: dict[Op | Leaf, object] = {}
    ready: list[tuple[int, Op | Leaf]] = []
    left: Left = []

    def add(node: Op | Leaf, grad) -> None:
        if node in pending:
            pending[node] = for_array(grad).add(pending[node], grad)
        else:
            pending[node] = grad
            heappush(ready, (node.order, node))

    for node, grad in roots:
        add(node, grad)
    while ready:
        node = heappop(ready)[1]
        grad = pending.pop(node)
        if type(node) is Leaf and node not in entries:
            left.append((node, grad))
            continue
        grad = through_hooks(node, grad)
        if type(node) is Leaf:
            node.accumulate(grad, owned=False)
            continue
        refuse_changed(node)
        parents = node.parents
        leaves = [p if type(p) is Leaf and p not in entries else None for p in parents]
        others = [None if leaf else p for p, leaf in zip(parents, leaves, strict=True)]
        if put_off := any(leaves) and (node.splits_backward or not any(others)):
            left.append((node, grad))
            node.needs, node.retained = others, True
        if any(others):
            for parent, g in zip(parents, _gradients(node, grad), strict=True):
                if parent is None or g is None:
                    continue
                if parent in leaves:
                    left.append((parent, g))
                else:
                    add(parent, g)
        if put_off:
            node.needs = leaves
        else:
            node.__dict__.clear()  # frees the arrays it saved
    return left


def backward_weights(left: Left) -> None:
    """Give the leaves their gradients, and use `left` up."""

    def gradients():
        left.reverse()
        while left:
            node, grad = left.pop()
            if type(node) is Leaf:
                yield node, grad
                continue
            found = zip(node.needs, _gradients(node, grad), strict=True)
            node.__dict__.clear()
            yield from ((leaf, g) for leaf, g in found if leaf is not None and g is not None)

    for leaf, grad in total_by_node(gradients()).items():
        leaf.accumulate(through_hooks(leaf, grad), owned=False)


def _gradients(op: Op, grad) -> tuple:
    found = op.backward(grad)
    return found if isinstance(found, tuple) else (found,)
