"""What a rank sends: in one collective, and in a step, read from its program."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.parallel.handle import CollectiveCall
from minidl.parallel.program import Program


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank sends in a step.

    messages: between stages. collectives: between instructions, as those of gradients. layers: inside of layers.
    """

    messages: float
    collectives: float
    layers: float

    @property
    def total(self) -> float:
        return self.messages + self.collectives + self.layers


def sent_bytes(call: CollectiveCall) -> float:
    """What a rank sends in a collective, the mean of its ranks, which receive as many: by a ring, the least there is.

    A ring passes every byte on over all its links but one; an all-reduce does so twice, as it reduces and then gathers.
    A message is sent whole; to receive it, or to wait for what has been started, sends nothing.
    """
    if call.phase == "wait":
        return 0.0
    if call.name in ("send", "recv"):
        return call.nbytes if call.name == "send" else 0.0
    rounds = 2 if call.name == "all_reduce" else 1
    return rounds * (call.size - 1) / call.size * call.nbytes


def traffic(program: Program) -> Traffic:
    """That of the rank that sends most."""
    ranks = program.plan.mesh(0).ranks("pipeline")  # those of one stage do alike
    return max((_of_rank(program, rank) for rank in ranks), key=lambda found: found.total)


def _of_rank(program: Program, rank: int) -> Traffic:
    costs, mesh = program.costs, program.plan.mesh(rank)
    messages = collectives = layers = 0.0
    for i in program[rank].step:
        if i.kind == "send":
            messages += costs.payload_bytes(i)
        elif i.kind == "collective":
            members = mesh.ranks(*i.axes)
            call = CollectiveCall(i.collective, i.axes, len(members), costs.payload_bytes(i))
            collectives += sent_bytes(call)
        elif i.kind == "compute":
            layers += program.plan.scale * sum(map(sent_bytes, costs.collectives(i)))
    return Traffic(messages, collectives, layers)
