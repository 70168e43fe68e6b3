"""Slots: where what replicas hold in shares lies whole while it is used.

With sharding="gradients" the gradients of a bucket are whole only from its backward until they are reduced, with
"parameters" those are whole only around its forward and its backward (Rajbhandari et al. 2020, stages 2 and 3; Zhao et
al. 2023, FSDP). The buckets of a stage take turns in two slots each: while one is used, the next is gathered into the
other, or the last one reduced from it. A bucket always has the same slot. So a tape may keep weights that lie there:
before its backward the same weights are there again.
"""

from __future__ import annotations

from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Layout
from minidl.parallel.plan import Plan

Place = tuple[int, int]  # a bucket: (chunk, number), or (APART, number) of what is apart
TURNS = 2  # a third slot gains nothing: a lane gathers one bucket at a time


def shards(plan: Plan, layout: Layout, place: Place) -> int:
    """Into how many shares the update of a bucket is cut."""
    return plan.shards(layout.reduction(*place).replicas)


def sharded(plan: Plan, layout: Layout, stage: int) -> tuple[Place, ...]:
    """The buckets of a stage of which each replica updates a share."""
    return tuple(place for place in layout.trained(stage) if shards(plan, layout, place) > 1)


def slots(plan: Plan, layout: Layout, stage: int) -> dict[Place, int]:
    """The slot of each bucket of a stage that has one. What is apart of a bucket has slots beside those of the bucket.

    What several blocks hold stays whole: it is used at both ends of a forward.
    """
    found: dict[Place, int] = {}
    if plan.sharding in ("gradients", "parameters"):
        own = set(sharded(plan, layout, stage))
        buckets = [place for place in layout.places(stage) if place[0] != APART]
        for turn, (chunk, b) in enumerate(buckets):
            apart = (n for n in layout.apart_in(chunk, range(b, b + 1), trained=True) if not layout.apart[n].tied)
            for beside, place in enumerate(((chunk, b), *((APART, n) for n in apart))):
                if place in own:
                    found[place] = TURNS * beside + turn % TURNS
    return found


def dropped(plan: Plan, layout: Layout, stage: int) -> dict[Place, int]:
    """The slot of each bucket of a stage of which a replica has its share alone, but where it is gathered."""
    return slots(plan, layout, stage) if plan.sharding == "parameters" else {}
