"""Plan -> Program: the instructions of every rank, made around the order that the plan's schedule gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from minidl.parallel import instructions as I
from minidl.parallel.instructions import Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import REPLICAS, Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program, RankProgram
from minidl.parallel.schedules import BACKWARD, FORWARD, INPUT, SCHEDULES, WEIGHTS

if TYPE_CHECKING:
    from minidl.parallel.costs import Costs


def training_program(
    plan: Plan, layout: Layout, clip: bool = False, norms: bool = False, costs: Costs | None = None
) -> Program:
    """The program of one training step under `plan`.

    clip: gradients are to be clipped by their norm. norms: the optimizer's update takes norms of whole parameters.
    """

    def make(mesh: Mesh) -> RankProgram:
        rank = _Rank(plan, layout, mesh)
        step = (rank.passes(), rank.reduce_tied(), rank.reduce_loss(), rank.update(clip, norms), rank.gather())
        return RankProgram((), tuple(chain(*step)), ())

    return Program(plan, layout, make, True, costs)


def evaluation_program(plan: Plan, layout: Layout, statistics: bool = False, costs: Costs | None = None) -> Program:
    """The program that evaluates one batch: forwards alone. statistics: the model has running statistics."""

    def make(mesh: Mesh) -> RankProgram:
        rank = _Rank(plan, layout, mesh)
        step = (rank.infer(), rank.reduce_loss(), (I.EndEvaluation(),))
        return RankProgram(tuple(rank.broadcast() if statistics else ()), tuple(chain(*step)), ())

    return Program(plan, layout, make, False, costs)


class _Rank:
    """The parts of one rank's list."""

    def __init__(self, plan: Plan, layout: Layout, mesh: Mesh):
        self.plan, self.layout, self.mesh = plan, layout, mesh
        self.stage = mesh.coordinate("pipeline")
        self.chunks = layout.stages[self.stage]
        self.last_chunk = len(layout.chunks) - 1
        self.recomputes = plan.recompute == "full"
        self.trained = layout.trained(self.stage)
        self.sharded = tuple(place for place in self.trained if plan.shards(layout.reduction(*place).replicas) > 1)
        self.apart_so_far: set[int] = set()  # what is apart and has a gradient in this step
        self._peers: dict[int, int] = {}

    def peer(self, chunk: int) -> int:
        """The rank that holds `chunk` of the same replica."""
        if chunk not in self._peers:
            self._peers[chunk] = self.mesh.rank_at(pipeline=self.layout.stage_of(chunk))
        return self._peers[chunk]

    def order(self) -> list[tuple[str, int, int]]:
        """What goes through which chunk when: the kind of pass, the chunk and the micro-batch."""
        plan = self.plan
        order = SCHEDULES[plan.schedule].order(self.stage, plan.pipeline, plan.micro_batches, len(self.chunks))
        return [(one.kind, self.chunks[one.chunk], one.micro_batch) for one in order]

    def passes(self) -> Iterator[Instruction]:
        """Forwards and backwards in the schedule's order."""
        passes = self.order()
        first = {(kind, chunk): m for kind, chunk, m in reversed(passes)}
        last = {(kind, chunk): m for kind, chunk, m in passes}
        for kind, chunk, m in passes:
            if kind == FORWARD or self.layout.trained_buckets(chunk):
                yield from PASSES[kind](self, chunk, m, m == first[kind, chunk], m == last[kind, chunk])

    def forward(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        last, trained = self.layout.last_bucket(chunk), self.layout.trained_buckets(chunk)
        # Bucket by bucket where parameters were just updated, so that the later ones are gathered meanwhile.
        cuts = [(b, b) for b in range(last + 1)] if self.sharded and first_of_step else [(0, last)]
        run = [I.Forward(chunk, m, *cut, trained.start, self.recomputes, apart=self.apart(chunk, *cut)) for cut in cuts]
        yield from self.between(chunk, m, run, I.Loss(chunk, m, last, bool(trained)))

    def infer(self) -> Iterator[Instruction]:
        """The forwards of the schedule's order."""
        for kind, chunk, m in self.order():
            if kind == FORWARD:
                last = self.layout.last_bucket(chunk)
                run = [I.Infer(chunk, m, 0, last, apart=self.apart(chunk, 0, last))]
                yield from self.between(chunk, m, run, I.Score(chunk, m, last))

    def between(self, chunk: int, m: int, run: list[Instruction], loss: Instruction) -> Iterator[Instruction]:
        """`run` between its input and what follows it: the next chunk, or after the last chunk `loss`."""
        if chunk == 0:
            yield I.LoadInput(m)
        else:
            yield I.RecvActivation(chunk, m, self.peer(chunk - 1), tuple_of=self.layout.tuples[chunk])
        yield from run
        if chunk < self.last_chunk:
            last, taken = self.layout.last_bucket(chunk), self.layout.tuples[chunk + 1]
            yield I.SendActivation(chunk, m, last, self.peer(chunk + 1), tuple_of=taken)
        else:
            yield I.LoadTarget(m)
            yield loss

    def backward(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        gives, reduces = self.layout.wants_gradient(chunk), last_of_step and self.reduces(chunk)
        # Bucket by bucket, so that each is reduced while the blocks before it still go backward. Where the rank before
        # waits for the gradient, that goes first; the reductions then fill the pipeline's drain.
        reduces_between = reduces and not gives
        for first, last, gives_gradient in self.cuts(chunk, reduces_between):
            yield from self.prepare_backward(chunk, m, last)
            apart = self.apart_gradients(chunk, first, last)
            yield I.Backward(chunk, m, first, last, not first_of_step, gives_gradient, **apart)
            if reduces_between:
                yield from self.reductions(chunk, first)
        yield from self.send_gradient(chunk, m)
        if reduces and gives:
            for b in reversed(self.layout.trained_buckets(chunk)):
                yield from self.reductions(chunk, b)

    def backward_input(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        for first, last, gives_gradient in self.cuts(chunk):
            yield from self.prepare_backward(chunk, m, last)
            yield I.BackwardInput(chunk, m, first, last, gives_gradient, apart=self.apart(chunk, first, last))
        yield from self.send_gradient(chunk, m)

    def cuts(self, chunk: int, by_bucket: bool = False) -> Iterator[tuple[int, int, bool]]:
        """Runs of buckets that go backward at once, last one first, and whether each gives the gradient of its input.

        by_bucket: one at a time, as they go where each is computed again before.
        """
        trained, gives = self.layout.trained_buckets(chunk), self.layout.wants_gradient(chunk)
        if by_bucket or self.recomputes:
            return ((b, b, gives or b > trained[0]) for b in reversed(trained))
        return iter([(trained[0], trained[-1], gives)])

    def prepare_backward(self, chunk: int, m: int, bucket: int) -> Iterator[Instruction]:
        """What comes before the backward of `bucket` and those before it: it is computed again; its gradient comes."""
        if self.recomputes:
            yield I.Recompute(chunk, m, bucket, bucket, apart=self.apart(chunk, bucket, bucket))
        if bucket == self.layout.last_bucket(chunk) and chunk < self.last_chunk:
            yield I.RecvGradient(chunk, m, bucket, self.peer(chunk + 1), tuple_of=self.layout.tuples[chunk + 1])

    def backward_weights(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        trained = self.layout.trained_buckets(chunk)
        if not (last_of_step and self.reduces(chunk)):
            apart = self.apart_gradients(chunk, trained[0], trained[-1])
            yield I.BackwardWeights(chunk, m, trained[0], trained[-1], not first_of_step, **apart)
            return
        for b in reversed(trained):
            yield I.BackwardWeights(chunk, m, b, b, not first_of_step, **self.apart_gradients(chunk, b, b))
            yield from self.reductions(chunk, b)

    def send_gradient(self, chunk: int, m: int) -> Iterator[Instruction]:
        if self.layout.wants_gradient(chunk):
            yield I.SendGradient(chunk, m, self.peer(chunk - 1), tuple_of=self.layout.tuples[chunk])

    def apart(self, chunk: int, first: int, last: int) -> tuple[int, ...]:
        return self.layout.apart_in(chunk, range(first, last + 1))

    def apart_gradients(self, chunk: int, first: int, last: int) -> dict[str, tuple[int, ...]]:
        """What is apart to whose gradients a backward adds, and of it that which has none before."""
        apart = self.layout.apart_in(chunk, range(first, last + 1), trained=True)
        new = tuple(n for n in apart if n not in self.apart_so_far)
        self.apart_so_far.update(new)
        return {"apart": apart, "new_apart": new}

    def own_apart(self, chunk: int, bucket: int) -> tuple[int, ...]:
        """What is apart of this bucket alone: it is reduced with it; what several blocks hold comes at the end."""
        apart = self.layout.apart_in(chunk, range(bucket, bucket + 1), trained=True)
        return tuple(n for n in apart if not self.layout.apart[n].tied)

    def reduces(self, chunk: int) -> bool:
        """Whether gradients of the chunk are reduced after its last backward."""
        apart = (n for b in self.layout.trained_buckets(chunk) for n in self.own_apart(chunk, b))
        return bool(self.plan.spread(REPLICAS)) or any(self.layout.apart[n].reduction.also for n in apart)

    def reductions(self, chunk: int, bucket: int) -> Iterator[Instruction]:
        """Of the gradients of a bucket: first over ranks of one replica where that is apart, then over the replicas."""
        if chunk == B.APART and self.layout.apart[bucket].reduction.also:
            yield I.SumParts(bucket, self.layout.apart[bucket].reduction.also)
        if axes := self.plan.spread(self.layout.reduction(chunk, bucket).replicas):
            kind = I.ReduceScatterGradients if (chunk, bucket) in self.sharded else I.ReduceGradients
            yield kind(chunk, bucket, axes)
        if chunk != B.APART:
            for n in self.own_apart(chunk, bucket):
                yield from self.reductions(B.APART, n)

    def reduce_tied(self) -> Iterator[Instruction]:
        """The gradients of what several blocks hold are summed over their stages, and then reduced."""
        for chunk, n in self.trained:
            if chunk == B.APART and self.layout.apart[n].tied:
                stages = self.layout.stages_of(n)
                if len(stages) > 1:
                    yield I.SumParts(n, (("pipeline", stages),))
                yield from self.reductions(B.APART, n)

    def reduce_loss(self) -> Iterator[Instruction]:
        micro_batches = tuple(range(self.plan.micro_batches)) if self.last_chunk in self.chunks else ()
        yield I.ReduceLoss(micro_batches, ("pipeline", *self.plan.spread(REPLICAS)))

    def update(self, clip: bool, norms: bool) -> Iterator[Instruction]:
        if clip:
            yield I.ReduceNorm(self.layout.counted(self.stage), ("pipeline", *self.plan.parted))
        if norms:
            yield I.MeasureParameters(self.trained, clip)
            yield I.ReduceParameterNorms(self.trained, self.plan.parted)
        yield I.OptimizerStep(self.trained, clip, norms, self.sharded)

    def gather(self) -> Iterator[Instruction]:
        """In the next forward's order: it reads what these write, and so waits for each (machine.py)."""
        for place in sorted(self.sharded):
            yield I.GatherParameters(*place, self.plan.spread(self.layout.reduction(*place).replicas))

    def broadcast(self) -> Iterator[Instruction]:
        """The statistics of the first replica, for all."""
        if axes := self.plan.spread(REPLICAS):
            for chunk in self.chunks:
                yield I.BroadcastStatistics(chunk, axes)


PASSES: dict[str, Callable[[_Rank, int, int, bool, bool], Iterator[Instruction]]] = {
    FORWARD: _Rank.forward,
    BACKWARD: _Rank.backward,
    INPUT: _Rank.backward_input,
    WEIGHTS: _Rank.backward_weights,
}
