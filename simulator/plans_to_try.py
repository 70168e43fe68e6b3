"""The plans that a comparison tries where none is given, by what it trains on."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.parallel import Plan

PLANS = (
    Plan(),
    Plan(data=2),
    Plan(data=2, sharding="optimizer"),
    Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
    Plan(pipeline=2, micro_batches=4, schedule="1f1b"),
    Plan(tensor=2),
    Plan(data=4),
    Plan(data=2, pipeline=2, micro_batches=2),
    Plan(data=2, tensor=2),
    Plan(tensor=4),
)
FEW_PLANS = (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=4))
QUICK_PLANS = (*FEW_PLANS, Plan(tensor=2), Plan(data=4))

GPU_PLANS = (
    Plan(),
    Plan(micro_batches=4),
    Plan(micro_batches=16),
    Plan(micro_batches=4, recompute="full"),
)
QUICK_GPU_PLANS = (Plan(), Plan(micro_batches=4))


@dataclass(frozen=True)
class PlansToTry:
    """plans: as a rule. few: on a second model. quick: where the comparison is to be quick."""

    plans: tuple[Plan, ...]
    few: tuple[Plan, ...]
    quick: tuple[Plan, ...]


PLANS_TO_TRY = {
    "cpu": PlansToTry(PLANS, FEW_PLANS, QUICK_PLANS),
    "cuda": PlansToTry(GPU_PLANS, GPU_PLANS, QUICK_GPU_PLANS),
}
