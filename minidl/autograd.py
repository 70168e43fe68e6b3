"""Gradients as values: `grad`, of any order with `create_graph=True`. The walk over the tape itself is in `tape.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from minidl.grad_mode import set_grad_enabled
from minidl.tape import run_backward
from minidl.tensor import Tensor, backward_root

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
    roots = [backward_root("grad", x, weight, create_graph) for x, weight in zip(outputs, weights, strict=True)]
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
