"""Proofs over a Program, before a process starts.

The checker runs the instruction lists symbolically, under the rules that the worker and the simulator follow: lanes are
first-in first-out, an instruction waits for the buffers it reads, a receive for its message, a collective for its
group. Buffers hold tags instead of numbers: which samples, through which chunks. So a wrong list fails here, whatever
the numbers would have looked like.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from minidl.parallel import instructions as I
from minidl.parallel.program import Program

CHANNEL_MESSAGES = 64  # that may be under way from one rank to another before the sender waits
EVERY_RANK = 64  # workers up to which every rank is run


class ProgramError(ValueError):
    """A program that would deadlock, or compute something else than its plan says."""


@dataclass(frozen=True)
class Report:
    """What the proof found beside correctness.

    peak_micro_batches: for each rank checked, the most micro-batches whose activations it keeps at once.
    """

    peak_micro_batches: dict[int, int]


def check(program: Program) -> Report:
    """Prove that one step of `program` runs to its end and computes what its plan says.

    Proved: no deadlock; every send meets its receive, in order; the members of a group agree on their collectives;
    every micro-batch passes every chunk in order; every parameter's gradient contains each sample of the global batch
    exactly once, and every update happens, of each replica's share where the optimizer is sharded, whose parameters are
    then gathered; every buffer is written once and freed. ProgramError says what is wrong, and where.
    """
    return _Checker(program).run()


class Tag(NamedTuple):
    """What an array stands for: a micro-batch of a replica, at the border of the chain after `chunks` chunks."""

    replica: int
    micro_batch: int
    chunks: int

    @property
    def samples(self) -> tuple[int, int]:
        return self.replica, self.micro_batch

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch} of replica {self.replica} after {self.chunks} chunks"


class _Rank:
    """One rank as far as it has come. buffers: buffer -> Tag, or a Counter of samples for sums over micro-batches."""

    def __init__(self, program: Program, rank: int):
        self.rank, self.mesh = rank, program.plan.mesh(rank)
        step = program[rank].step
        self.lanes = {lane: deque(i for i in step if i.lane == lane) for lane in (I.COMPUTE, I.COMMUNICATION)}
        self.buffers: dict[I.Buffer, object] = {}
        self.meetings: Counter = Counter()  # axes -> collectives over them that this rank has finished
        self.live = self.peak = 0
        self.updated = False


@dataclass
class _Meeting:
    """One collective: the instruction with which each rank came, and what it brought."""

    instructions: dict[int, I.Instruction] = field(default_factory=dict)
    brought: list[Counter] = field(default_factory=list)

    @cached_property
    def total(self) -> Counter:
        return sum(self.brought, Counter())


WAIT = None  # what a rule returns if its instruction cannot run yet; otherwise it returns the tags that are written


class _Checker:
    def __init__(self, program: Program):
        self.program, self.plan = program, program.plan
        # The ranks of a stage have equal lists but for their peers: where there are many, one of each stage will do.
        every = program.edited or program.world_size <= EVERY_RANK
        chosen = range(program.world_size) if every else program.representatives()
        self.ranks = {rank: _Rank(program, rank) for rank in chosen}
        self.channels: defaultdict[tuple[int, int], deque] = defaultdict(deque)  # (from, to) -> messages
        self.meetings: defaultdict[tuple, _Meeting] = defaultdict(_Meeting)
        self.training = any(isinstance(i, I.Forward) for rank in self.ranks for i in program[rank].step)
        replicas = {rank.mesh.coordinate("data") for rank in self.ranks.values()}
        # A replica that is not run is represented by one that is: its samples are then in the reduced gradient as well.
        self.batch = Counter((d, m) for d in replicas for m in range(self.plan.micro_batches))

    def run(self) -> Report:
        moved = True
        while moved:
            moved = False
            for rank in self.ranks.values():
                for lane in rank.lanes.values():
                    while lane and self.try_run(rank, lane[0]):
                        lane.popleft()
                        moved = True
        self.check_end()
        return Report({rank.rank: rank.peak for rank in self.ranks.values()})

    def try_run(self, rank: _Rank, i: I.Instruction) -> bool:
        if any(buffer not in rank.buffers for buffer in i.reads):
            return False
        tags = RULES[type(i)](self, rank, i, [rank.buffers[buffer] for buffer in i.reads])
        if tags is WAIT:
            return False
        for buffer in i.frees:
            del rank.buffers[buffer]
        for buffer, tag in zip(i.writes, tags, strict=True):
            if buffer in rank.buffers:
                raise ProgramError(f"rank {rank.rank}: {i} overwrites {buffer}, which is still in use")
            rank.buffers[buffer] = tag
        return True

    def check_end(self) -> None:
        stuck = [f"rank {r.rank} at {lane[0]}" for r in self.ranks.values() for lane in r.lanes.values() if lane]
        unread = [
            f"{kind} of {tag} from rank {source} to rank {to}"
            for (source, to), messages in self.channels.items()
            for kind, tag in messages
        ]
        if stuck:
            never = f"; never received: {', '.join(unread)}" if unread else ""
            raise ProgramError(f"deadlock: no instruction can run any more ({'; '.join(stuck)}{never})")
        if unread:
            raise ProgramError(f"never received: {', '.join(unread)}")
        for r in self.ranks.values():
            if r.buffers:
                raise ProgramError(f"rank {r.rank} never frees {', '.join(map(str, r.buffers))}")
            if self.training and not r.updated:
                raise ProgramError(f"rank {r.rank} never updates its parameters")

    # A rule for each instruction: takes the tags that are read, returns those that are written, or WAIT

    def load(self, rank: _Rank, i: I.LoadInput | I.LoadTarget, read):
        return [Tag(rank.mesh.coordinate("data"), i.micro_batch, 0)]

    def forward(self, rank: _Rank, i: I.Forward | I.Infer, read):
        (tag,) = read
        if tag.chunks != i.chunk or tag.micro_batch != i.micro_batch:
            raise ProgramError(f"rank {rank.rank}: {i} gets {tag}")
        output = tag._replace(chunks=i.chunk + 1)
        if isinstance(i, I.Infer):
            return [output]
        rank.live += 1
        rank.peak = max(rank.peak, rank.live)
        return [output, tag]

    def loss(self, rank: _Rank, i: I.Loss | I.Score, read):
        output, target = read
        if output.samples != target.samples or output.chunks != self.plan.pipeline:
            raise ProgramError(f"rank {rank.rank}: {i} compares {output} with the labels of {target}")
        loss = Counter([output.samples])
        return [loss] if isinstance(i, I.Score) else [output, loss]

    def backward(self, rank: _Rank, i: I.Backward, read):
        saved, gradient, *before = read
        if gradient != saved._replace(chunks=i.chunk + 1):
            raise ProgramError(f"rank {rank.rank}: {i} meets the gradient of {gradient} with what {saved} saved")
        accumulated = [tags + Counter([saved.samples]) for tags in before or [Counter()] * len(i.buckets)]
        rank.live -= i.first == 0
        handed_on = len(i.writes) - len(accumulated)  # 0 or 1: the gradient for the blocks before these
        return [saved if i.first == 0 else gradient] * handed_on + accumulated

    def send(self, rank: _Rank, i: I.SendActivation | I.SendGradient, read):
        if i.to == rank.rank or not 0 <= i.to < self.program.world_size:
            raise ProgramError(f"rank {rank.rank}: {i} has no such peer among {self.program.world_size} ranks")
        messages = self.channels[rank.rank, i.to]
        if len(messages) == CHANNEL_MESSAGES:
            return WAIT
        messages.append(("activation" if isinstance(i, I.SendActivation) else "gradient", read[0]))
        return []

    def receive(self, rank: _Rank, i: I.RecvActivation | I.RecvGradient, read):
        messages = self.channels[i.source, rank.rank]
        if not messages:
            return WAIT
        kind, tag = messages.popleft()
        wanted = "activation" if isinstance(i, I.RecvActivation) else "gradient"
        if (kind, tag.micro_batch) != (wanted, i.micro_batch):
            raise ProgramError(
                f"rank {rank.rank} expects the {wanted} of micro-batch {i.micro_batch} from rank {i.source}, "
                f"which sends the {kind} of micro-batch {tag.micro_batch} first"
            )
        return [tag]

    def meet(self, rank: _Rank, i, read) -> _Meeting | None:
        """Come to the collective `i`; the meeting once all members of the group are there."""
        members = tuple(r for r in rank.mesh.ranks(*i.axes) if r in self.ranks)
        meeting = self.meetings[i.axes, members, rank.meetings[i.axes]]
        if rank.rank not in meeting.instructions:
            for other, theirs in meeting.instructions.items():
                if type(theirs) is not type(i) or theirs.name != i.name:
                    raise ProgramError(f"rank {rank.rank} is at {i}, rank {other} of the same group at {theirs}")
            meeting.instructions[rank.rank] = i
            meeting.brought += read
        if len(meeting.instructions) < len(members):
            return WAIT
        rank.meetings[i.axes] += 1
        return meeting

    def reduce(self, rank: _Rank, i: I.ReduceGradients | I.ReduceLoss | I.ReduceParameterNorms, read):
        meeting = self.meet(rank, i, read)
        return WAIT if meeting is WAIT else [meeting.total]

    def gather(self, rank: _Rank, i: I.GatherParameters, read):
        return WAIT if self.meet(rank, i, []) is WAIT else []

    def reduce_norm(self, rank: _Rank, i: I.ReduceNorm, read):
        self.check_gradients(rank, i)
        return WAIT if self.meet(rank, i, []) is WAIT else [Counter()]

    def measure(self, rank: _Rank, i: I.MeasureParameters, read):
        self.check_gradients(rank, i)
        self.check_whole(rank, ("total",))
        return [Counter([rank.rank])]

    def reduce_parameter_norms(self, rank: _Rank, i: I.ReduceParameterNorms, read):
        sharded = self.plan.optimizer_shards > 1
        if i.shares != sharded:
            raise ProgramError(f"rank {rank.rank}: {i} needs shares={sharded}: the plan is {self.plan}")
        return self.reduce(rank, i, read)

    def update(self, rank: _Rank, i: I.OptimizerStep, read):
        self.check_gradients(rank, i)
        self.check_whole(rank, ("total",))
        if rank.updated:
            raise ProgramError(f"rank {rank.rank} updates its parameters twice")
        rank.updated = True
        return [Counter()] * len(i.writes)

    def end_evaluation(self, rank: _Rank, i: I.EndEvaluation, read):
        self.check_whole(rank, ("total",))
        return []

    def check_gradients(self, rank: _Rank, i: I.OptimizerStep | I.MeasureParameters | I.ReduceNorm) -> None:
        """The gradients of every bucket of the stage are there, once each, with all samples in them."""
        stage = rank.mesh.coordinate("pipeline")
        buckets = range(len(self.program.layout.buckets[stage]))
        if sorted(gradient[1:3] for gradient in i.gradients) != [(stage, b) for b in buckets]:
            raise ProgramError(f"rank {rank.rank}: {i} needs each of the {len(buckets)} buckets of stage {stage} once")
        sharded = self.plan.optimizer_shards > 1
        if any((kind == "share") != sharded for kind, *_ in i.gradients):
            needs = "shares of gradients" if sharded else "whole gradients"
            raise ProgramError(f"rank {rank.rank}: {i} needs {needs}: the plan is {self.plan}")
        for buffer in i.gradients:
            self.check_whole(rank, buffer)

    def check_whole(self, rank: _Rank, buffer: I.Buffer) -> None:
        tags = rank.buffers[buffer]
        if tags != self.batch:
            lost, twice = self.batch - tags, tags - self.batch
            what = f"lacks {sorted(lost)}" if lost else f"counts {sorted(twice)} more than once"
            raise ProgramError(f"rank {rank.rank}: {buffer} {what} (replica, micro-batch) of the global batch")


RULES: dict[type[I.Instruction], Callable] = {
    I.LoadInput: _Checker.load,
    I.LoadTarget: _Checker.load,
    I.Forward: _Checker.forward,
    I.Infer: _Checker.forward,
    I.Loss: _Checker.loss,
    I.Score: _Checker.loss,
    I.Backward: _Checker.backward,
    I.SendActivation: _Checker.send,
    I.RecvActivation: _Checker.receive,
    I.SendGradient: _Checker.send,
    I.RecvGradient: _Checker.receive,
    I.ReduceGradients: _Checker.reduce,
    I.ReduceScatterGradients: _Checker.reduce,
    I.GatherParameters: _Checker.gather,
    I.ReduceLoss: _Checker.reduce,
    I.ReduceNorm: _Checker.reduce_norm,
    I.MeasureParameters: _Checker.measure,
    I.ReduceParameterNorms: _Checker.reduce_parameter_norms,
    I.OptimizerStep: _Checker.update,
    I.EndEvaluation: _Checker.end_evaluation,
}
