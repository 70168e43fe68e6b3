"""prepare: the one front door. What a plan makes of a model, for whoever trains it, simulates it or looks at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from minidl.nn.module import Module
from minidl.one_at_a_time import one_at_a_time
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.chain import Builder, chain_under
from minidl.parallel.chain_profile import ChainProfile, chain_of
from minidl.parallel.costs import Costs
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import axis_name
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program

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


@one_at_a_time
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
    chain = chain_under(plan, batch_size, build, example, loss, optimizer, dtype, flops_per_byte, device)
    model, profile, cuts = chain.model, chain.profile, chain.layout
    if profile.statistics:
        _check_buffers(chain_of(model), cuts)
    costs = Costs(plan, cuts, profile)
    _check_communication(plan, model, costs)
    training = training_program(plan, cuts, clip, profile.norms, costs)
    evaluation = evaluation_program(plan, cuts, profile.statistics, costs)
    return Prepared(costs, training, evaluation, cache(chain.whole))


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
