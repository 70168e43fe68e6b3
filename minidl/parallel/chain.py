"""A chain under a plan: built on meta, run on a micro-batch, and cut; remembered where its builder says all of it.

So another plan or batch of the same model, as a search tries hundreds of them, costs neither again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from minidl import optim
from minidl.creation import device as default_device
from minidl.kernels import predicting
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.parallel.blocks import attention_recomputed, recomputes_attention
from minidl.parallel.chain_profile import LAYER_AXES, ChainProfile, build_on_meta, loss_of, profile_chain, whole_on_meta
from minidl.parallel.layout import Layout, layout
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.remembered import Code, Remembered
from minidl.parallel.sequence import part
from minidl.tensor import Tensor

Builder = Callable[[Mesh], Module]

KNOWN = Remembered(256)


@dataclass(frozen=True)
class Chain:
    """model: with parameters on meta, of which one block may stand for others; nobody changes it. whole: all of it."""

    model: Module
    profile: ChainProfile
    layout: Layout
    whole: Callable[[], Module]


def chain_under(
    plan: Plan, batch_size: int, build: Builder, example: Sequence | None, loss, optimizer: Callable | None, dtype,
    flops_per_byte: float, device: str,
) -> Chain:  # fmt: skip
    """The chain as a rank has it that stands for all. The arguments are those of `prepare`; so is what is raised."""
    KNOWN.check()
    made = optimizer or optim.Adam
    lasting = _is_lasting(build) and _is_our_class(made)  # which does nothing to the parameters of a model
    mesh = plan.mesh(_busiest_rank(plan))
    places = tuple((mesh.coordinate(axis), mesh.size(axis)) for axis in LAYER_AXES)

    def built() -> tuple[Module, Code]:
        model = build_on_meta(build, mesh, dtype, whole=False)
        return model, _code(build, model) if lasting else Code()

    split = build, places, mesh.sequence_parallel, dtype
    model = _known(lasting, split, built)
    samples = batch_size // (plan.sample_parts * plan.micro_batches)
    selective = plan.recompute == "selective"

    def profiled() -> tuple[ChainProfile, Code, Module]:
        x, y = _parts(plan, *_example(model, example, samples, dtype))
        with attention_recomputed(model, True) if selective else nullcontext():
            if selective and not recomputes_attention(model):
                raise ValueError(
                    'recompute="selective", but the model has no attention whose weights could be computed again'
                )
            profile = profile_chain(model, x, y, loss or loss_of(model), made, kernels)
        return profile, Code(*made.__mro__) if lasting else Code(), model

    says_all = lasting and example is None and loss is None
    try:
        with predicting(device) as kernels:
            profile = _known(says_all, (id(model), samples, selective, kernels, made), profiled)
    except BaseException:  # in whatever state that leaves the model, as Ctrl-C may
        if lasting:
            KNOWN.forget(split)
        raise
    if profile.whole and plan.sharding != "none":
        raise ValueError(
            f'sharding="{plan.sharding}" has each rank update shares of parameters, and {profile.optimizer} takes '
            "whole ones"
        )
    cut = "layout", id(profile), flops_per_byte, plan.pipeline, plan.chunks, plan.bucket_mb
    cuts = _known(says_all, cut, lambda: (_layout(plan, profile, flops_per_byte), Code(), profile))
    return Chain(model, profile, cuts, lambda: whole_on_meta(None if lasting else model, build, mesh, dtype))


def _is_lasting(build: Builder) -> bool:
    """Whether a builder says all that decides on what it builds but for the split, as those of `models.builder` do.

    A function, and code of a user's own, may build something else the next time, or for another number of replicas.
    """
    try:
        hash(build)
    except TypeError:
        return False
    function = getattr(build, "function", None)
    return _is_our_class(type(build)) and function is not None and function.__module__.startswith("minidl.")


def _is_our_class(kind: object) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith("minidl.")


def _known(lasting: bool, key: Hashable, make: Callable[[], tuple]):
    """The first of what `make` gives; then come the code on which it depends, and that whose identity the key says."""
    found = KNOWN.get(key, make, lambda found: found[1].as_it_was) if lasting else make()
    return found[0]


def _code(build: Builder, model: Module) -> Code:
    """What builds a model, and what its layers do."""
    kinds = {kind: None for module in model.modules() for kind in type(module).__mro__}
    return Code(sys.modules[build.function.__module__], *kinds)


def _layout(plan: Plan, profile: ChainProfile, flops_per_byte: float) -> Layout:
    weights = profile.each(lambda block: block.cost(flops_per_byte))
    return layout(
        plan, weights, profile.parameter_bytes, profile.first_trained, profile.ties, profile.tuples, profile.reductions
    )


def _example(model: Module, given: Sequence | None, samples: int, dtype) -> tuple[MetaArray, MetaArray]:
    """Input and target of so many samples, by default as the model carries them."""
    if given is not None:
        arrays = [e.data if isinstance(e, Tensor) else e if hasattr(e, "shape") else np.asarray(e) for e in given]
        x, y = (MetaArray((samples, *a.shape[1:]), dtype if a.dtype.kind == "f" else a.dtype) for a in arrays)
    elif hasattr(model, "example"):
        with default_device("meta"):
            x, y = (tensor.data for tensor in model.example(samples))
    else:
        raise ValueError("the model carries no example input: give one, as example=(x, y)")
    return x, y


def _busiest_rank(plan: Plan) -> int:
    """Of the ranks that share layers one in the middle: it exchanges halos with two others, a first one with one."""
    ranks = plan.mesh(0).ranks("tensor")
    return ranks[1] if len(ranks) > 2 else ranks[0]


def _parts(plan: Plan, x: MetaArray, y: MetaArray) -> tuple[MetaArray, MetaArray]:
    """Of a micro-batch what one of the ranks has that share sequences. ValueError unless both are such."""
    if plan.context == 1:
        return x, y
    if x.ndim < 2 or y.ndim < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"context={plan.context} shares sequences: it needs inputs and targets (batch, sequence, …), not shapes "
            f"{x.shape} and {y.shape}"
        )
    return tuple(part(array, 1, 0, plan.context) for array in (x, y))
