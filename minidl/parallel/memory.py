"""What a rank holds over a step: a walk over what its instructions write and free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from minidl.parallel.costs import Costs
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions.buffers import GATHERED, LOCAL
from minidl.parallel.program import Program

SHOWN_AS = {
    "parameters": "parameters", GATHERED: "parameters", "statistics": "parameters", "gradients": "gradients",
    LOCAL: "gradients", "state": "optimizer",
}  # fmt: skip
OTHERS = "activations"
KINDS = "parameters", "gradients", "optimizer", OTHERS


@dataclass(frozen=True)
class Memory:
    """Bytes that a rank holds at one time."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.activations


def peak_memory(program: Program, rank: int) -> Memory:
    """What `rank` holds when it holds most."""
    return max((memory for _, memory in memory_over_step(program, rank)), key=lambda memory: memory.total)


def memory_over_step(program: Program, rank: int) -> Iterator[tuple[Instruction, Memory]]:
    """What `rank` holds after each instruction of a step, before it frees what it has not used up, in the list's order.

    The step follows others: gradients and slots have had their memory since the first. What lies in one storage counts
    once, and what a kernel makes and drops does not. Messages that come before their place in the list are not counted
    early.

    In a precision below float32 training is in mixed precision: the optimizer also keeps a float32 master of what it
    updates (Micikevicius et al. 2018, section 3.1; sharded: Rajbhandari et al. 2020, figure 1).
    """
    step = program[rank].step
    kept = "gradients", GATHERED, LOCAL
    resident = program.persistent(rank) | {buffer for i in step for buffer in i.writes if buffer.holds in kept}
    held = _Held(program.costs)
    held.add(resident)
    if program.plan.scale < 1:
        held.nbytes["optimizer"] += program.costs.master_bytes(program.plan.mesh(rank).coordinate("pipeline"))
    for i in step:
        writes, frees = ([b for b in buffers if b not in resident] for buffers in (i.writes, i.frees))
        if i.uses_up:
            held.drop(frees)
        held.add(writes)
        yield i, held.memory()
        if not i.uses_up:
            held.drop(frees)


class _Held:
    """The storages that are held, and their bytes by kind, in the precision of training."""

    def __init__(self, costs: Costs):
        self.costs, self.scale = costs, costs.plan.scale
        self.users: Counter[Hashable] = Counter()  # storage -> buffers that lie in it
        self.known: dict[Hashable, tuple[str, float]] = {}  # storage -> its kind and bytes
        self.nbytes: Counter[str] = Counter()  # kind -> bytes

    def add(self, buffers: Iterable[BufferName]) -> None:
        for buffer in buffers:
            scale = 1.0 if self.costs.bytes.is_full_precision(buffer) else self.scale
            for storage, nbytes in self.costs.bytes_of(buffer).items():
                self.users[storage] += 1
                if self.users[storage] == 1:
                    self.known[storage] = kind, held = SHOWN_AS.get(buffer.holds, OTHERS), nbytes * scale
                    self.nbytes[kind] += held

    def drop(self, buffers: Iterable[BufferName]) -> None:
        for buffer in buffers:
            for storage in self.costs.bytes_of(buffer):
                self.users[storage] -= 1
                if not self.users[storage]:
                    kind, held = self.known[storage]
                    self.nbytes[kind] -= held

    def memory(self) -> Memory:
        return Memory(**{kind: self.nbytes[kind] for kind in KINDS})
