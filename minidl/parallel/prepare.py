"""prepare: the one front door. What a plan makes of a model, for whoever trains it, simulates it or looks at it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from minidl import optim
from minidl.creation import device as default_device
from minidl.kernels import predicting
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.blocks import attention_recomputed, recomputes_attention
from minidl.parallel.chain_profile import (
    LAYER_AXES,
    ChainProfile,
    build_on_meta,
    chain_of,
    loss_of,
    profile_chain,
    whole_on_meta,
)
from minidl.parallel.costs import Costs
from minidl.parallel.layout import Layout, layout
from minidl.parallel.mesh import Mesh, axis_name
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program
from minidl.parallel.remembered import Remembered
from minidl.parallel.sequence import part
from minidl.tensor import Tensor

Builder = Callable[[Mesh], Module]
Value = TypeVar("Value")

KNOWN = Remembered(256)  # chains, their profiles and layouts
FLOPS_PER_BYTE = 20  # an AVX-512 core's 235 GFLOP/s over its 12 GB/s of memory


@dataclass(frozen=True)
class Prepared:
    """What a plan makes of a model: the chain on meta as a rank has it that stands for all, its costs, the programs.

    costs: has the profile of a micro-batch, and the layout, which says what is trained at all.
    """

    costs: Costs
    training: Program
    evaluation: Program
    _build: Callable[[], Module]

    @property
    def profile(self) -> ChainProfile:
        return self.costs.profile

    @property
    def model(self) -> Module:
        return self._build()


def prepare(
    build: Builder,
    plan: Plan,
    batch_size: int,
    *,
    example: Sequence | None = None,
    loss=None,
    optimizer: Callable | None = None,
    clip: bool = False,
    dtype="float32",
    flops_per_byte: float = FLOPS_PER_BYTE,
    device: str = "cpu",
) -> Prepared:
    """Build the chain on meta, run it on a micro-batch, cut it into chunks and buckets, and list what each rank does.

    batch_size: samples of the global batch. example: (x, y), arrays or tensors of one or more samples, by default what
    the model carries. loss: by default the model's own, or cross-entropy. optimizer: a function of parameters, Adam by
    default. clip: gradients are clipped by their norm. dtype: of parameters and inputs. flops_per_byte: the arithmetic
    a device does in the time in which it moves a byte: it weighs the two where blocks are compared, to be cut into
    stages of equal cost. device: on which the chain is to run; only "cpu", "cuda" and "flash" differ, in what attention
    keeps.

    Nothing is allocated. Raises ValueError for what does not fit together.
    """
    plan.check_batch(batch_size)
    KNOWN.check()
    mesh = plan.mesh(_busiest_rank(plan))
    lasting = _is_lasting(build)
    places = tuple((mesh.coordinate(axis), mesh.size(axis)) for axis in LAYER_AXES)
    built = build, places, mesh.sequence_parallel, dtype
    model = _known(lasting, ("model", *built), lambda: build_on_meta(build, mesh, dtype, whole=False))
    samples = batch_size // (plan.sample_parts * plan.micro_batches)
    selective = plan.recompute == "selective"

    def profiled() -> ChainProfile:
        x, y = _parts(plan, *_example(model, example, samples, dtype))
        with attention_recomputed(model, True) if selective else nullcontext():
            if selective and not recomputes_attention(model):
                raise ValueError(
                    'recompute="selective", but the model has no attention whose weights could be computed again'
                )
            return profile_chain(model, x, y, loss or loss_of(model), optimizer or optim.Adam, kernels)

    with predicting(device) as kernels:
        lasting_profile = lasting and example is None and loss is None and _is_our_class(optimizer or optim.Adam)
        run = "profile", *built, samples, selective, kernels, optimizer, _code(model)
        profile = _known(lasting_profile, run, profiled)
    if profile.whole and plan.sharding != "none":
        raise ValueError(
            f'sharding="{plan.sharding}" has each rank update shares of parameters, and {profile.optimizer} takes '
            "whole ones"
        )
    cut = "layout", id(profile), flops_per_byte, plan.pipeline, plan.chunks, plan.bucket_mb
    cuts, _ = _known(lasting_profile, cut, lambda: (_layout(plan, profile, flops_per_byte), profile))
    if profile.statistics:
        _check_buffers(chain_of(model), cuts)
    costs = Costs(plan, cuts, profile)
    _check_communication(plan, model, costs)
    training = training_program(plan, cuts, clip, profile.norms, costs)
    evaluation = evaluation_program(plan, cuts, profile.statistics, costs)
    return Prepared(
        costs, training, evaluation, cache(lambda: whole_on_meta(None if lasting else model, build, mesh, dtype))
    )


def _is_lasting(build: Builder) -> bool:
    """Whether a builder says all that decides on what it builds but for what it splits, as `models.Changed` does.

    A function, and code of a user's own, may build something else the next time, or for another number of replicas.
    """
    try:
        hash(build)
    except TypeError:
        return False
    return _is_our_class(type(build)) and type(build).__hash__ is not object.__hash__


def _is_our_class(kind: object) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith("minidl.")


def _known(lasting: bool, key: Hashable, make: Callable[[], Value]) -> Value:
    return KNOWN.get(key, make) if lasting else make()


def _code(model: Module) -> tuple:
    """What the modules of a chain run."""
    return tuple({type(module).forward: None for module in model.modules()})


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


def _check_communication(plan: Plan, model: Module, costs: Costs) -> None:
    """ValueError if the model does not do on several ranks what the plan has them for."""
    calls = list(costs.layer_calls())
    for axis in plan.spread(("context", "expert", "tensor")):
        if not any(axis in map(axis_name, call.axes) for call in calls):
            raise ValueError(f"{axis}={getattr(plan, axis)}, but no layer of the model communicates over that axis")
    if plan.sequence_parallel and not any(getattr(module, "sequence_parallel", False) for module in model.modules()):
        raise ValueError("sequence_parallel=True, but no layer of the model slices sequences over the tensor axis")


def _check_buffers(chain: Sequence[Module], cuts: Layout) -> None:
    """ValueError if blocks on several stages hold the same buffer: each stage would move its own."""
    holders: dict[int, list[int]] = {}
    for number, block in enumerate(chain):
        for buffer in block.buffers():
            holders.setdefault(id(buffer), []).append(number)
    for blocks in holders.values():
        if len(cuts.stages_with(blocks)) > 1:
            raise ValueError(f"blocks {blocks[0]} and {blocks[-1]} share running statistics: they must be on one stage")
