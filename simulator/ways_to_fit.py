"""What would make a plan fit into the memory of its devices: plans that hold less, each prepared and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from minidl.parallel.plan import RECOMPUTATIONS, SHARDINGS, Plan
from minidl.parallel.prepare import Prepared
from simulator.memory import device_bytes, stage_memories
from simulator.stacks import Stack

Changes = dict[str, object]


@dataclass(frozen=True)
class Way:
    """Fields of a plan that are changed, to what, and what the fullest device then needs."""

    changes: Changes
    plan: Plan
    memory_bytes: float

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.changes.items())


def ways_to_fit(plan: Plan, stack: Stack, memory_bytes: float, prepare: Callable[[Plan], Prepared]) -> tuple[Way, ...]:
    """Of each kind of change the least with which it fits; if none does by itself, one way of several together.

    Workers and the batch stay as they are. plan: as the stack carries it out; what it does otherwise is
    no way. prepare: what a plan makes of the model; what it refuses is none either.
    """

    def way(changes: Changes) -> Way | None:
        try:
            changed = stack.planned(replace(plan, **changes))
            if changed == plan:
                return None
            memories = stage_memories(prepare(changed).training, stack)
        except ValueError:
            return None
        return Way(changes, changed, max(device_bytes(memory, stack) for memory in memories))

    alone, least = [], []  # of each kind the first with which it fits; or what holds least
    for kind in KINDS:
        tried = []
        for found in filter(None, map(way, kind(plan))):
            tried.append(found)
            if found.memory_bytes <= memory_bytes:
                alone.append(found)
                break
        least += [min(tried, key=lambda found: found.memory_bytes)] if tried else []
    if alone:
        return tuple(alone)
    together: Changes = {}
    for found in least:
        joined = way(together | found.changes)
        if joined is not None:
            together |= found.changes
            if joined.memory_bytes <= memory_bytes:
                return (joined,)
    return ()


def _sharding(plan: Plan) -> Iterator[Changes]:
    if plan.data * plan.context * plan.expert > 1:
        return ({"sharding": name} for name in SHARDINGS[SHARDINGS.index(plan.sharding) + 1 :])
    return iter(())


def _recompute(plan: Plan) -> Iterator[Changes]:
    return ({"recompute": name} for name in RECOMPUTATIONS[RECOMPUTATIONS.index(plan.recompute) + 1 :])


def _sequence_parallel(plan: Plan) -> Iterator[Changes]:
    return iter([{"sequence_parallel": True}] if plan.tensor > 1 and not plan.sequence_parallel else [])


def _micro_batches(plan: Plan) -> Iterator[Changes]:
    return ({"micro_batches": plan.micro_batches * 2**n} for n in range(1, 11))


def _instead_of_replicas(axis: str) -> Callable[[Plan], Iterator[Changes]]:
    """More ranks along `axis`, and as many replicas fewer."""

    def changes(plan: Plan) -> Iterator[Changes]:
        size = 2
        while plan.data % size == 0:
            yield {axis: getattr(plan, axis) * size, "data": plan.data // size}
            size *= 2

    return changes


KINDS: tuple[Callable[[Plan], Iterator[Changes]], ...] = (
    _sequence_parallel, _sharding, _recompute, _micro_batches, _instead_of_replicas("tensor"),
    _instead_of_replicas("pipeline"),
)  # fmt: skip
