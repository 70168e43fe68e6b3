"""What a rank holds over a step: a walk over what its instructions write and free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from minidl.parallel.costs import Costs
from minidl.parallel.instructions import BufferName, Instruction, Loss
from minidl.parallel.instructions.buffers import GATHERED, LOCAL, of_micro_batch
from minidl.parallel.program import Program
from minidl.parallel.remembered import Remembered

SHOWN_AS = {
    "parameters": "parameters", GATHERED: "parameters", "statistics": "parameters", "gradients": "gradients",
    LOCAL: "gradients", "state": "optimizer",
}  # fmt: skip
OTHERS = "activations"
KNOWN = Remembered(1024)  # what comes and goes in a list; bytes are not
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


def peak_memory(
    program: Program, rank: int, step: Sequence[Instruction] | None = None, beside_loss: float = 0.0
) -> Memory:
    """What `rank` holds when it holds most. step: its list, by default that of the program (structure.py: `steps_of`).

    beside_loss: bytes of activations that are there while the loss is computed, and that no buffer has.

    As `memory_over_step`, but what an instruction does to storages that no other buffer lies in is one number, for all
    micro-batches.
    """
    step = program[rank].step if step is None else step
    persistent = program.persistent(rank)
    changes = KNOWN.get((id(step), persistent), lambda: _Changes(step, persistent))
    held, effects = _held(program, rank, changes.resident), _Effects(program.costs, changes)
    now, total = held.nbytes, sum(held.nbytes.values())
    peak, most = held.memory(), total
    users: Counter[Hashable] = Counter()
    known: dict[Hashable, tuple[str, float]] = {}  # of what is shared, as who came first has it
    for i in step:
        for change in effects.of(i):
            sign = change.sign
            for kind, nbytes in change.own:
                now[kind] += sign * nbytes
                total += sign * nbytes
            for storage, kind, nbytes in change.shared:
                key = storage, i.micro_batch if change.of_it else None
                users[key] = count = users[key] + sign
                if count == 1 and sign > 0:
                    known[key] = kind, nbytes
                if count == (sign > 0):
                    kind, nbytes = known[key]
                    now[kind] += sign * nbytes
                    total += sign * nbytes
            if sign > 0:
                beside = beside_loss if isinstance(i, Loss) else 0.0
                if total + beside > most:
                    peak, most = held.memory(beside), total + beside
    return peak


def memory_over_step(program: Program, rank: int) -> Iterator[tuple[Instruction, Memory]]:
    """What `rank` holds after each instruction of a step, before it frees what it has not used up, in the list's order.

    The step follows others: gradients and slots have had their memory since the first. What lies in one storage counts
    once, and what a kernel makes and drops does not. Messages that come before their place in the list are not counted
    early.

    In a precision below float32 training is in mixed precision: the optimizer also keeps a float32 master of what it
    updates (Micikevicius et al. 2018, section 3.1; sharded: Rajbhandari et al. 2020, figure 1).
    """
    step = program[rank].step
    resident = _resident(step, program.persistent(rank))
    held = _held(program, rank, resident)
    for i in step:
        writes, frees = ([b for b in buffers if b not in resident] for buffers in (i.writes, i.frees))
        if i.uses_up:
            held.drop(frees)
        held.add(writes)
        yield i, held.memory()
        if not i.uses_up:
            held.drop(frees)


def _resident(step: Sequence[Instruction], persistent: frozenset[BufferName]) -> frozenset[BufferName]:
    """The buffers that stay over a step."""
    kept = "gradients", GATHERED, LOCAL
    return persistent | {buffer for i in step for buffer in i.writes if buffer.holds in kept}


def _held(program: Program, rank: int, resident: frozenset[BufferName]) -> _Held:
    """What stays."""
    held = _Held(program.costs)
    held.add(resident)
    if program.plan.scale < 1:
        held.nbytes["optimizer"] += program.costs.master_bytes(program.plan.mesh(rank).coordinate("pipeline"))
    return held


class _Changes:
    """Which buffers the instructions of a list free and write that are not resident, once for all micro-batches.

    of_work: by the identity of what instructions do: one of them, and the two. step: is kept, for the identities.
    """

    def __init__(self, step: Sequence[Instruction], persistent: frozenset[BufferName]):
        self.step, self.resident = step, _resident(step, persistent)
        works = {id(i.work): i for i in step}
        self.of_work = {work: (i, self._changed(i, i.frees), self._changed(i, i.writes)) for work, i in works.items()}

    def _changed(self, i: Instruction, buffers: Iterable[BufferName]) -> tuple[BufferName, ...]:
        """Those of them that come or go, as if they were of the first micro-batch, if they are of the instruction's."""
        in_place = set(i.reads).intersection(i.writes)
        changed = (b for b in buffers if b not in in_place and b not in self.resident)
        return tuple(of_micro_batch(b, 0) if _is_of(i, b) else b for b in changed)


class _Effect(NamedTuple):
    """What freeing, or writing, some buffers changes. own: bytes by kind of storages in which no other buffer lies.

    sign: -1 or 1. shared: the other storages, with their kinds and bytes. of_it: of the instruction's micro-batch.
    """

    sign: int
    own: tuple[tuple[str, float], ...]
    shared: tuple[tuple[Hashable, str, float], ...]
    of_it: bool


class _Effects:
    """What these changes are in bytes."""

    def __init__(self, costs: Costs, changes: _Changes):
        self.costs = costs
        buffers = {b for _, frees, writes in changes.of_work.values() for b in (*frees, *writes)}
        self._storages = {buffer: self._of(buffer) for buffer in buffers}
        self._users = Counter(storage for found in self._storages.values() for storage, *_ in found)
        self._known = {work: self._effects(*change) for work, change in changes.of_work.items()}

    def of(self, i: Instruction) -> Sequence[_Effect]:
        """Of what it frees, and of what it writes, in the order in which that is so."""
        return self._known[id(i.work)]

    def _of(self, buffer: BufferName) -> tuple[tuple[Hashable, str, float], ...]:
        scale = 1.0 if self.costs.bytes.is_full_precision(buffer) else self.costs.plan.scale
        kind = SHOWN_AS.get(buffer.holds, OTHERS)
        return tuple((storage, kind, nbytes * scale) for storage, nbytes in self.costs.bytes_of(buffer).items())

    def _effects(self, i: Instruction, frees: Sequence[BufferName], writes: Sequence[BufferName]) -> list[_Effect]:
        freed, written = [self._effect(i, -1, frees)] if frees else [], [self._effect(i, 1, writes)] if writes else []
        return freed + written if i.uses_up else written + freed

    def _effect(self, i: Instruction, sign: int, buffers: Iterable[BufferName]) -> _Effect:
        own: dict[str, float] = {}
        shared = []
        for buffer in buffers:
            for one in self._storages[buffer]:
                storage, kind, nbytes = one
                if self._users[storage] > 1:
                    shared.append(one)
                else:
                    own[kind] = own.get(kind, 0.0) + nbytes
        return _Effect(sign, tuple(own.items()), tuple(shared), hasattr(i, "micro_batch"))


def _is_of(i: Instruction, buffer: BufferName) -> bool:
    return buffer.micro_batch is not None and hasattr(i, "micro_batch")


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

    def memory(self, beside: float = 0.0) -> Memory:
        """What is held. beside: bytes of activations that no buffer has."""
        held = Memory(**{kind: self.nbytes[kind] for kind in KINDS})
        return replace(held, activations=held.activations + beside) if beside else held
