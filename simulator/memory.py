"""What a rank holds over a step: a walk over what its instructions write and free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from minidl.parallel.instructions import Buffer, Instruction
from minidl.parallel.program import Program

KINDS = {"parameters": "parameters", "statistics": "parameters", "gradients": "gradients", "state": "optimizer"}
OTHERS, AS_THEY_ARE = "activations", "activations, whatever the precision"


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


def peak_memory(program: Program, rank: int, scale: float = 1.0) -> Memory:
    """What `rank` holds when it holds most. scale: see `memory_over_step`."""
    return max((memory for _, memory in memory_over_step(program, rank, scale)), key=lambda memory: memory.total)


def memory_over_step(program: Program, rank: int, scale: float = 1.0) -> Iterator[tuple[Instruction, Memory]]:
    """What `rank` holds when an instruction has written and not yet freed, for each of a step, in the list's order.

    The step follows others: gradients have had their memory since the first. What lies in one storage counts once, and
    what a kernel makes and drops does not. Messages that come before their place in the list are not counted early.

    scale: bytes of an activation, gradient or parameter relative to float32. Below 1, training is in mixed precision:
    the optimizer also keeps a float32 master of each parameter (Micikevicius et al. 2018, section 3.1), or of its share
    (Rajbhandari et al. 2020, figure 1).
    """
    step = program[rank].step
    resident = program.persistent(rank) | {buffer for i in step for buffer in i.writes if buffer.holds == "gradients"}
    held = _Held(program)
    for buffer in resident:
        held.add(buffer)
    master = held.nbytes["parameters"] / program.plan.optimizer_shards if scale < 1 else 0
    for i in step:
        for buffer in i.writes:
            if buffer not in resident:
                held.add(buffer)
        parameters, gradients, activations = (scale * held.nbytes[k] for k in ("parameters", "gradients", OTHERS))
        yield (
            i,
            Memory(parameters, gradients, held.nbytes["optimizer"] + master, activations + held.nbytes[AS_THEY_ARE]),
        )
        for buffer in i.frees:
            if buffer not in resident:
                held.drop(buffer)


class _Held:
    """The storages that are held, and their bytes by kind."""

    def __init__(self, program: Program):
        self.costs = program.costs
        self.users: Counter[Hashable] = Counter()  # storage -> buffers that lie in it
        self.kinds: dict[Hashable, str] = {}
        self.nbytes: Counter[str] = Counter()  # kind -> bytes

    def add(self, buffer: Buffer) -> None:
        kind = AS_THEY_ARE if self.costs.keeps_precision(buffer) else KINDS.get(buffer.holds, OTHERS)
        for storage, nbytes in self.costs.bytes_of(buffer).items():
            self.users[storage] += 1
            if self.users[storage] == 1:
                self.kinds[storage] = kind
                self.nbytes[kind] += nbytes

    def drop(self, buffer: Buffer) -> None:
        for storage, nbytes in self.costs.bytes_of(buffer).items():
            self.users[storage] -= 1
            if not self.users[storage]:
                self.nbytes[self.kinds[storage]] -= nbytes
