"""Plan -> Program: the instructions of every rank, made around the order that the plan's schedule gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from minidl.parallel import instructions as I
from minidl.parallel.again import Again
from minidl.parallel.instructions import Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.just_in_time import added_up, just_in_time
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import REPLICAS, Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program, RankProgram
from minidl.parallel.schedules import BACKWARD, FORWARD, INPUT, WEIGHTS, Pass, schedule_of
from minidl.parallel.slots import Place, dropped, sharded, slots

if TYPE_CHECKING:
    from minidl.parallel.costs import Costs


def training_program(
    plan: Plan, layout: Layout, clip: bool = False, norms: bool = False, costs: Costs | None = None
) -> Program:
    """The program of one training step under `plan`.

    clip: gradients are to be clipped by their norm. norms: the optimizer's update takes norms of whole parameters.
    """
    return Program(plan, layout, Training(layout, clip, norms), True, costs)


def evaluation_program(plan: Plan, layout: Layout, statistics: bool = False, costs: Costs | None = None) -> Program:
    """The program that evaluates one batch: forwards alone. statistics: the model has running statistics."""
    return Program(plan, layout, Evaluation(layout, statistics), False, costs)


@dataclass(frozen=True)
class Training:
    """The list of a rank in a training step, whatever the plan; equal where the lists are."""

    layout: Layout
    clip: bool
    norms: bool

    def __call__(self, plan: Plan, mesh: Mesh) -> RankProgram:
        rank = _Rank(plan, self.layout, mesh)
        passes = rank.passes()
        if rank.local:
            passes = added_up(passes)
        if rank.gathered:
            passes = just_in_time(passes, rank.gather)
        ended = rank.reduce_tied(), rank.reduce_loss(), rank.update(self.clip, self.norms), rank.gather_updated()
        return RankProgram((), tuple(chain(passes, *ended)), ())


@dataclass(frozen=True)
class Evaluation:
    """The list of a rank where a batch is evaluated, whatever the plan; equal where the lists are."""

    layout: Layout
    statistics: bool

    def __call__(self, plan: Plan, mesh: Mesh) -> RankProgram:
        rank = _Rank(plan, self.layout, mesh)
        step = just_in_time(rank.infer(), rank.gather), rank.reduce_loss(), (I.EndEvaluation(),)
        return RankProgram(tuple(rank.broadcast() if self.statistics else ()), tuple(chain(*step)), ())


class _Rank:
    """The parts of one rank's list."""

    def __init__(self, plan: Plan, layout: Layout, mesh: Mesh):
        self.plan, self.layout, self.mesh = plan, layout, mesh
        self.stage = mesh.coordinate("pipeline")
        self.chunks = layout.stages[self.stage]
        self.last_chunk = len(layout.chunks) - 1
        self.recomputes = plan.recompute == "full"
        self.trained = layout.trained(self.stage)
        self.sharded = sharded(plan, layout, self.stage)
        self.local = {p: B.local_gradients(self.stage, n) for p, n in slots(plan, layout, self.stage).items()}
        self.gathered = {p: B.gathered(self.stage, n) for p, n in dropped(plan, layout, self.stage).items()}
        self.apart_so_far: set[int] = set()  # what is apart and has a gradient in this step
        self._peers: dict[int, int] = {}

    def peer(self, chunk: int) -> int:
        """The rank that holds `chunk` of the same replica."""
        if chunk not in self._peers:
            self._peers[chunk] = self.mesh.rank_at(pipeline=self.layout.stage_of(chunk))
        return self._peers[chunk]

    def order(self) -> list[tuple[str, int, int]]:
        """What goes through which chunk when: the kind of pass, the chunk and the micro-batch."""
        plan, chunks, passes = self.plan, self.chunks, []
        for one in schedule_of(plan.schedule).order(self.stage, plan.pipeline, plan.micro_batches, len(chunks)):
            known = isinstance(one, Pass) and one.kind in PASSES
            if not (known and one.micro_batch in range(plan.micro_batches) and one.chunk in range(len(chunks))):
                raise ValueError(
                    f"schedule {plan.schedule_name} gives stage {self.stage} {one!r}: needed is a Pass of a kind in "
                    f"{', '.join(map(repr, PASSES))}, of {plan.micro_batches} micro-batches and {len(chunks)} chunks"
                )
            passes.append((one.kind, chunks[one.chunk], one.micro_batch))
        return passes

    def passes(self) -> Iterator[Instruction]:
        """Forwards and backwards in the schedule's order."""
        passes = self.order()
        first = {(kind, chunk): m for kind, chunk, m in reversed(passes)}
        last = {(kind, chunk): m for kind, chunk, m in passes}
        between: dict[tuple[str, int], Again] = {}  # those that are neither are alike
        for kind, chunk, m in passes:
            if kind != FORWARD and not self.layout.trained_buckets(chunk):
                continue
            ends = m == first[kind, chunk], m == last[kind, chunk]
            if any(ends):
                yield from PASSES[kind](self, chunk, m, *ends)
            elif (kind, chunk) in between:
                yield from between[kind, chunk].of(m)
            else:
                found = list(PASSES[kind](self, chunk, m, *ends))
                between[kind, chunk] = Again(found)
                yield from found

    def forward(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        last, trained = self.layout.last_bucket(chunk), self.layout.trained_buckets(chunk)
        # Bucket by bucket where parameters are gathered or were just updated: the later ones are gathered meanwhile.
        by_bucket = bool(self.gathered or (self.sharded and first_of_step))
        cuts = self.forward_cuts(chunk, by_bucket)
        run = [I.Forward(chunk, m, *cut, trained.start, self.recomputes, **self.held(chunk, *cut)) for cut in cuts]
        yield from self.between(chunk, m, run, I.Loss(chunk, m, last, bool(trained)))

    def forward_cuts(self, chunk: int, by_bucket: bool) -> list[tuple[int, int]]:
        """Runs of buckets that go forward at once."""
        last = self.layout.last_bucket(chunk)
        return [(b, b) for b in range(last + 1)] if by_bucket else [(0, last)]

    def infer(self) -> Iterator[Instruction]:
        """The forwards of the schedule's order."""
        for kind, chunk, m in self.order():
            if kind == FORWARD:
                cuts = self.forward_cuts(chunk, bool(self.gathered))
                run = [I.Infer(chunk, m, *cut, **self.held(chunk, *cut)) for cut in cuts]
                yield from self.between(chunk, m, run, I.Score(chunk, m, self.layout.last_bucket(chunk)))

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
        gives, reduces = self.layout.wants_gradient(chunk), self.reduces(chunk, last_of_step)
        # Bucket by bucket, so that each is reduced while the blocks before it still go backward. Where the rank before
        # waits for the gradient, that goes first, if gradients may wait; the reductions then fill the pipeline's drain.
        reduces_between = reduces and (bool(self.local) or not gives)
        for first, last, gives_gradient in self.cuts(chunk, reduces_between):
            yield from self.prepare_backward(chunk, m, last)
            found = self.gradients(chunk, first, last, first_of_step)
            yield I.Backward(chunk, m, first, last, gives_gradient=gives_gradient, **found)
            if reduces_between:
                yield from self.reductions(chunk, first, last_of_step)
        yield from self.send_gradient(chunk, m)
        if reduces and not reduces_between:
            for b in reversed(self.layout.trained_buckets(chunk)):
                yield from self.reductions(chunk, b, last_of_step)

    def backward_input(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        for first, last, gives_gradient in self.cuts(chunk):
            yield from self.prepare_backward(chunk, m, last)
            yield I.BackwardInput(chunk, m, first, last, gives_gradient, **self.held(chunk, first, last))
        yield from self.send_gradient(chunk, m)

    def cuts(self, chunk: int, by_bucket: bool = False) -> Iterator[tuple[int, int, bool]]:
        """Runs of buckets that go backward at once, last one first, and whether each gives the gradient of its input.

        by_bucket: one at a time, as they go where each is computed again or gathered before.
        """
        trained, gives = self.layout.trained_buckets(chunk), self.layout.wants_gradient(chunk)
        if by_bucket or self.recomputes or self.gathered:
            return ((b, b, gives or b > trained[0]) for b in reversed(trained))
        return iter([(trained[0], trained[-1], gives)])

    def prepare_backward(self, chunk: int, m: int, bucket: int) -> Iterator[Instruction]:
        """What comes before the backward of `bucket` and those before it: it is computed again; its gradient comes."""
        if self.recomputes:
            yield I.Recompute(chunk, m, bucket, bucket, **self.held(chunk, bucket, bucket))
        if bucket == self.layout.last_bucket(chunk) and chunk < self.last_chunk:
            yield I.RecvGradient(chunk, m, bucket, self.peer(chunk + 1), tuple_of=self.layout.tuples[chunk + 1])

    def backward_weights(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        trained = self.layout.trained_buckets(chunk)
        if not self.reduces(chunk, last_of_step):
            found = self.gradients(chunk, trained[0], trained[-1], first_of_step, weights=True)
            yield I.BackwardWeights(chunk, m, trained[0], trained[-1], **found)
            return
        for b in reversed(trained):
            yield I.BackwardWeights(chunk, m, b, b, **self.gradients(chunk, b, b, first_of_step, weights=True))
            yield from self.reductions(chunk, b, last_of_step)

    def send_gradient(self, chunk: int, m: int) -> Iterator[Instruction]:
        if self.layout.wants_gradient(chunk):
            yield I.SendGradient(chunk, m, self.peer(chunk - 1), tuple_of=self.layout.tuples[chunk])

    def held(self, chunk: int, first: int, last: int, trained: bool = False) -> dict[str, tuple]:
        """What buckets have that is apart, and which parameters are gathered for them."""
        apart = self.layout.apart_in(chunk, range(first, last + 1), trained)
        places = (*((chunk, b) for b in range(first, last + 1)), *((B.APART, n) for n in apart))
        return {"apart": apart, "gathered": _chosen(self.gathered, places)}

    def gradients(
        self, chunk: int, first: int, last: int, first_of_step: bool, weights: bool = False
    ) -> dict[str, tuple | bool]:
        """Where a backward finds the gradients of which parameters, and which of these are the first."""
        found = self.held(chunk, first, last, trained=True)
        places = (*((chunk, b) for b in range(first, last + 1)), *((B.APART, n) for n in found["apart"]))
        local = _chosen(self.local, places)
        new = tuple(n for n in found["apart"] if n not in self.apart_so_far or (B.APART, n) in self.local)
        self.apart_so_far.update(new)
        if weights:
            found["gathered"] = ()  # gradients of weights need no weights
        return {**found, "new_apart": new, "local": local, "accumulates": not first_of_step and not local}

    def own_apart(self, chunk: int, bucket: int) -> tuple[int, ...]:
        """What is apart of this bucket alone: it is reduced with it; what several blocks hold comes at the end."""
        apart = self.layout.apart_in(chunk, range(bucket, bucket + 1), trained=True)
        return tuple(n for n in apart if not self.layout.apart[n].tied)

    def reduces(self, chunk: int, last_of_step: bool) -> bool:
        """Whether gradients of the chunk are reduced after a backward: after its last one, or after each."""
        if not last_of_step:
            return bool(self.local)
        apart = (n for b in self.layout.trained_buckets(chunk) for n in self.own_apart(chunk, b))
        return bool(self.plan.spread(REPLICAS)) or any(self.layout.apart[n].reduction.also for n in apart)

    def reductions(self, chunk: int, bucket: int, last_of_step: bool = True) -> Iterator[Instruction]:
        """Of the gradients of a bucket: first over ranks of one replica where that is apart, then over the replicas.

        Before the last backward of the step only those that may not wait for it.
        """
        slot = self.local.get((chunk, bucket))
        if slot or last_of_step:
            if chunk == B.APART and self.layout.apart[bucket].reduction.also:
                yield I.SumParts(bucket, self.layout.apart[bucket].reduction.also, slot=slot)
            if axes := self.replicas(chunk, bucket):
                kind = I.ReduceScatterGradients if (chunk, bucket) in self.sharded else I.ReduceGradients
                yield kind(chunk, bucket, axes, slot=slot)
        if chunk != B.APART:
            for n in self.own_apart(chunk, bucket):
                yield from self.reductions(B.APART, n, last_of_step)

    def replicas(self, chunk: int, bucket: int) -> tuple[str, ...]:
        """The axes along which ranks hold the same parameters of a bucket."""
        return self.plan.spread(self.layout.reduction(chunk, bucket).replicas)

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

    def gather(self, place: Place) -> Instruction:
        return I.GatherParameters(*place, self.replicas(*place), slot=self.gathered.get(place))

    def gather_updated(self) -> Iterator[Instruction]:
        """In the next forward's order: it reads what these write, and so waits for each (machine.py)."""
        return map(self.gather, sorted(set(self.sharded) - self.gathered.keys()))

    def broadcast(self) -> Iterator[Instruction]:
        """The statistics of the first replica, for all."""
        if axes := self.plan.spread(REPLICAS):
            for chunk in self.chunks:
                yield I.BroadcastStatistics(chunk, axes)


def _chosen(slots: dict[Place, B.BufferName], places: Iterable[Place]) -> tuple[tuple[Place, B.BufferName], ...]:
    return tuple((place, slots[place]) for place in places if place in slots) if slots else ()


PASSES: dict[str, Callable[[_Rank, int, int, bool, bool], Iterator[Instruction]]] = {
    FORWARD: _Rank.forward,
    BACKWARD: _Rank.backward,
    INPUT: _Rank.backward_input,
    WEIGHTS: _Rank.backward_weights,
}
