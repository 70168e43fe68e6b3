"""Proofs over a Program, before a process starts.

The checker runs the instruction lists symbolically, under the rules that the worker and the simulator follow: lanes are
first-in first-out, an instruction waits for the buffers it reads, a receive for its message, a collective for its
group. Buffers hold tags instead of numbers: which samples, through which chunks. So a wrong list fails here, whatever
the numbers would have looked like.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from minidl.parallel.instructions import (
    COMMUNICATION,
    COMPUTE,
    Backward,
    EndEvaluation,
    Forward,
    Infer,
    Instruction,
    LoadInput,
    LoadTarget,
    Loss,
    OptimizerStep,
    RecvActivation,
    RecvGradient,
    ReduceGradients,
    ReduceLoss,
    Score,
    SendActivation,
    SendGradient,
)
from minidl.parallel.schedules import Program

CHANNEL_MESSAGES = 64  # that may be under way from one rank to another before the sender waits


class ProgramError(ValueError):
    """A program that would deadlock, or compute something else than its plan says."""


@dataclass(frozen=True)
class Report:
    """What the proof found beside correctness.

    peak_micro_batches: for each rank checked, the most micro-batches whose activations it keeps at once.
    """

    peak_micro_batches: dict[int, int]


@dataclass
class _Rank:
    rank: int
    lanes: dict[str, deque[Instruction]]
    buffers: dict = field(default_factory=dict)  # buffer -> tag
    live: int = 0
    peak: int = 0
    updated: bool = False


def check(program: Program) -> Report:
    """Prove that one step of `program` runs to its end and computes what its plan says.

    Proved: no deadlock; every send meets its receive, in order; the members of a group agree on their collectives; every
    parameter's gradient contains each sample of the global batch exactly once, and every update happens; every buffer
    is written once and freed. ProgramError says what is wrong, and where.
    """
    return _Checker(program).run()


class _Checker:
    def __init__(self, program: Program):
        self.program, self.plan = program, program.plan
        # The ranks of a stage have equal lists but for their peers: where there are many, one of each stage will do.
        everyone = range(program.world_size)
        self.ranks = {
            rank: _Rank(rank, {
                lane: deque(i for i in program[rank].step if i.lane == lane) for lane in (COMPUTE, COMMUNICATION)
            })
            for rank in (everyone if program.edited or program.world_size <= 64 else program.representatives())
        }  # fmt: skip
        self.meshes = {rank: self.plan.mesh(rank) for rank in self.ranks}
        self.channels: dict[tuple, deque] = {}
        self.training = any(isinstance(i, Forward) for i in program[0].step)
        replicas = {self.meshes[rank].coordinate("data") for rank in self.ranks}
        # A replica that is not run is represented by one that is: its samples are then in the reduced gradient as well.
        self.batch = Counter((d, m) for d in replicas for m in range(self.plan.micro_batches))

    def run(self) -> Report:
        moved = True
        while moved:
            moved = False
            for rank in self.ranks.values():
                for lane in rank.lanes.values():
                    while lane and self.try_run(rank, lane):
                        moved = True
        stuck = [(r, lane[0]) for r in self.ranks.values() for lane in r.lanes.values() if lane]
        if stuck:
            places = "; ".join(f"rank {r.rank} at {i}" for r, i in stuck)
            raise ProgramError(f"deadlock: no instruction can run any more ({places})")
        self.check_end()
        return Report({r.rank: r.peak for r in self.ranks.values()})

    def check_end(self) -> None:
        for channel, messages in self.channels.items():
            if messages:
                raise ProgramError(f"a message from rank {channel[0]} to rank {channel[1]} is never received: {messages[0]}")
        for r in self.ranks.values():
            if r.buffers:
                raise ProgramError(f"rank {r.rank} never frees {', '.join(map(str, r.buffers))}")
            if self.training and not r.updated:
                raise ProgramError(f"rank {r.rank} never updates its parameters")

    # Running one instruction

    def try_run(self, rank: _Rank, lane: deque[Instruction]) -> bool:
        """Run the head of `lane` if it can run now."""
        instruction = lane[0]
        if any(buffer not in rank.buffers for buffer in instruction.reads):
            return False
        if hasattr(instruction, "axes"):
            return self.try_collective(rank, instruction)
        if isinstance(instruction, (SendActivation, SendGradient)):
            if not self.try_send(rank, instruction):
                return False
        elif isinstance(instruction, (RecvActivation, RecvGradient)):
            if not self.try_receive(rank, instruction):
                return False
        else:
            self.compute(rank, instruction)
        self.finish(rank, instruction)
        lane.popleft()
        return True

    def finish(self, rank: _Rank, instruction: Instruction) -> None:
        for buffer in instruction.frees:
            del rank.buffers[buffer]

    def write(self, rank: _Rank, buffer, tag, instruction) -> None:
        if buffer in rank.buffers:
            raise ProgramError(f"rank {rank.rank}: {instruction} overwrites {buffer}, which is still in use")
        rank.buffers[buffer] = tag

    def try_send(self, rank: _Rank, instruction) -> bool:
        messages = self.channels.setdefault((rank.rank, instruction.to), deque())
        if len(messages) == CHANNEL_MESSAGES:
            return False
        kind = "activation" if isinstance(instruction, SendActivation) else "gradient"
        messages.append((kind, instruction.micro_batch, rank.buffers[instruction.reads[0]]))
        return True

    def try_receive(self, rank: _Rank, instruction) -> bool:
        messages = self.channels.setdefault((instruction.source, rank.rank), deque())
        if not messages:
            return False
        kind, micro_batch, tag = messages[0]
        wanted = "activation" if isinstance(instruction, RecvActivation) else "gradient"
        if (kind, micro_batch) != (wanted, instruction.micro_batch):
            raise ProgramError(
                f"rank {rank.rank} expects the {wanted} of micro-batch {instruction.micro_batch} from rank "
                f"{instruction.source}, which sends the {kind} of micro-batch {micro_batch} first"
            )
        messages.popleft()
        self.write(rank, instruction.writes[0], tag, instruction)
        return True

    def try_collective(self, rank: _Rank, instruction) -> bool:
        """Run the collective on all members at once, when every one has it at the head of its lane."""
        members = [self.ranks[r] for r in self.meshes[rank.rank].ranks(*instruction.axes) if r in self.ranks]
        heads = []
        for member in members:
            lane = member.lanes[instruction.lane]
            if not lane or any(buffer not in member.buffers for buffer in lane[0].reads):
                return False
            heads.append(lane[0])
        for member, head in zip(members, heads):
            if type(head) is not type(instruction) or head.name != instruction.name:
                if hasattr(head, "axes") and head.axes == instruction.axes:
                    raise ProgramError(
                        f"rank {rank.rank} is at {instruction}, rank {member.rank} of the same group at {head}"
                    )
                return False
        tags = [[member.buffers[b] for b in head.reads] for member, head in zip(members, heads)]
        for member, head in zip(members, heads):
            if isinstance(head, ReduceGradients):
                self.write(member, head.writes[0], sum((t for own in tags for t in own), Counter()), head)
            elif isinstance(head, ReduceLoss):
                self.write(member, head.writes[0], sum((Counter(own) for own in tags), Counter()), head)
            else:
                self.write(member, head.writes[0], True, head)
            self.finish(member, head)
            member.lanes[instruction.lane].popleft()
        return True

    def compute(self, rank: _Rank, i: Instruction) -> None:
        replica = self.meshes[rank.rank].coordinate("data")
        read = rank.buffers
        if isinstance(i, (LoadInput, LoadTarget)):
            self.write(rank, i.writes[0], (replica, i.micro_batch), i)
        elif isinstance(i, (Forward, Infer)):
            for buffer in i.writes:
                self.write(rank, buffer, read[i.reads[0]], i)
            rank.live += isinstance(i, Forward)
            rank.peak = max(rank.peak, rank.live)
        elif isinstance(i, (Loss, Score)):
            output, target = (read[b] for b in i.reads)
            if output != target:
                raise ProgramError(f"rank {rank.rank}: {i} compares the output of {output} with the labels of {target}")
            for buffer in i.writes:
                self.write(rank, buffer, output, i)
        elif isinstance(i, Backward):
            saved, gradient, *before = (read[b] for b in i.reads)
            if saved != gradient:
                raise ProgramError(f"rank {rank.rank}: {i} meets the gradient of {gradient} with what {saved} saved")
            before = before or [Counter()] * len(i.buckets)
            own = i.writes[-len(i.buckets) :]
            for buffer in i.writes[: -len(i.buckets)]:
                self.write(rank, buffer, saved, i)
            for buffer, tags in zip(own, before):
                self.write(rank, buffer, tags + Counter([saved]), i)
            rank.live -= i.first == 0
        elif isinstance(i, OptimizerStep):
            self.check_gradients(rank, i)
        elif isinstance(i, EndEvaluation):
            self.check_counted(rank, ("total",))

    def check_gradients(self, rank: _Rank, step: OptimizerStep) -> None:
        stage = self.meshes[rank.rank].coordinate("pipeline")
        buckets = len(self.program.layout.buckets[stage])
        if {g[2] for g in step.gradients} != set(range(buckets)):
            raise ProgramError(f"rank {rank.rank}: {step} leaves out some of the {buckets} buckets of stage {stage}")
        for buffer in (*step.gradients, ("total",)):
            self.check_counted(rank, buffer)
        rank.updated = True

    def check_counted(self, rank: _Rank, buffer) -> None:
        tags = rank.buffers[buffer]
        if tags != self.batch:
            lost, twice = self.batch - tags, tags - self.batch
            what = f"lacks {sorted(lost)}" if lost else f"counts {sorted(twice)} more than once"
            raise ProgramError(f"rank {rank.rank}: {buffer} {what} (replica, micro-batch) of the global batch")
