"""Plan -> Program: the instructions of every rank, made around the order that the plan's schedule gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import TYPE_CHECKING

from minidl.display import Displayed
from minidl.parallel import instructions as I
from minidl.parallel.instructions import Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import Layout
from minidl.parallel.machine import Compiled, Entry, compile_list
from minidl.parallel.mesh import REPLICAS, Axis, Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.schedules import BACKWARD, FORWARD, INPUT, SCHEDULES, WEIGHTS
from minidl.units import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minidl.parallel.costs import Costs


@dataclass(frozen=True)
class RankProgram(Displayed):
    """The instructions of one rank: once before the first step, in every step, once after the last.

    Steps follow one another without a pause; before the first and after the last the rank waits until all is done.
    """

    prologue: tuple[Instruction, ...]
    step: tuple[Instruction, ...]
    epilogue: tuple[Instruction, ...]

    def __iter__(self) -> Iterator[Instruction]:
        return chain(self.prologue, self.step, self.epilogue)

    def __repr__(self) -> str:
        return f"<RankProgram of {counted(len(self.step), 'instruction')} a step>"

    def __rich__(self) -> RenderableType:
        from minidl.parallel.listing import rank_listing  # with rich, which workers do not need

        return rank_listing(self)


class Program(Displayed):
    """The instructions of every rank. Lists are made when they are asked for: a rank's list depends on its place alone.

    plan, layout: what the program was made from. trains: it is to update every parameter that is trained. costs: what
    its instructions call and its buffers hold; None where that is not known. edited: ranks whose list was replaced; the
    lists of all others are those of `original`.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        make: Callable[[Mesh], RankProgram],
        trains: bool,
        costs: Costs | None = None,
        edited: dict[int, RankProgram] | None = None,
        original: Program | None = None,
    ):
        self.plan, self.layout, self._make, self.trains, self.costs = plan, layout, make, trains, costs
        self.edited, self._original = edited or {}, original
        self._ranks: dict[int, RankProgram] = dict(self.edited)
        self._compiled: dict[tuple[int, str], Compiled] = {}

    @property
    def world_size(self) -> int:
        return self.plan.workers

    def __len__(self) -> int:
        return self.world_size

    def __getitem__(self, rank: int) -> RankProgram:
        if rank not in range(self.world_size):
            raise IndexError(f"there are the ranks 0 to {self.world_size - 1}, and no {rank!r}")
        if rank not in self._ranks:
            self._ranks[rank] = self._original[rank] if self._original is not None else self._make(self.plan.mesh(rank))
        return self._ranks[rank]

    def persistent(self, rank: int) -> frozenset[B.Buffer]:
        """The buffers of `rank` that stay from step to step."""
        stage = self.plan.mesh(rank).coordinate("pipeline")
        kept = (held(*place) for place in self.layout.places(stage) for held in (B.parameters, B.state))
        return frozenset((*kept, *map(B.statistics, self.layout.stages[stage])))

    def compiled(self, rank: int, part: str = "step") -> Compiled:
        """A part of the list of `rank`, lane by lane. HazardError says what is wrong with it."""
        if self._original is not None and rank not in self.edited:
            return self._original.compiled(rank, part)
        if (rank, part) not in self._compiled:
            own = getattr(self[rank], part)
            first = self.plan.mesh(rank).rank_at(data=0, context=0, expert=0, tensor=0)
            if rank == first or self.edited:
                found = compile_list(own, self.persistent(rank))
            else:  # which differs from that of the first rank of its stage by its peers alone
                found = {
                    lane: tuple(map(Entry, (i for i in own if i.lane == lane), (entry.after for entry in entries)))
                    for lane, entries in self.compiled(first, part).items()
                }
            self._compiled[rank, part] = found
        return self._compiled[rank, part]

    def edit(self, lists: dict[int, RankProgram]) -> Program:
        """The same program, but that these ranks have these lists."""
        for rank, own in lists.items():
            if rank not in range(self.world_size):
                raise ValueError(f"there are the ranks 0 to {self.world_size - 1}: rank {rank!r} cannot be edited")
            if not (isinstance(own, RankProgram) and all(isinstance(i, Instruction) for i in own)):
                raise TypeError(f"rank {rank} needs a RankProgram of instructions, not {own!r}")
        return Program(self.plan, self.layout, self._make, self.trains, self.costs, self.edited | lists, self)

    def without(self, rank: int, index: int) -> Program:
        """The same program, but that `rank` lacks instruction `index` of its step."""
        own = self[rank]
        if index not in range(len(own.step)):
            raise ValueError(f"the step of rank {rank} has {len(own.step)} instructions, from 0: there is no {index!r}")
        return self.edit({rank: RankProgram(own.prologue, own.step[:index] + own.step[index + 1 :], own.epilogue)})

    def representatives(self) -> tuple[int, ...]:
        """One rank of each stage, whose other ranks have the same list but for their peers. All, if any is edited."""
        if self.edited:
            return tuple(range(self.world_size))
        return self.plan.mesh(0).ranks("pipeline")

    @property
    def axes(self) -> list[tuple[Axis, ...]]:
        """The axes over which its instructions meet, in an order that all ranks agree on."""
        ranks = (self[rank] for rank in self.representatives())
        return sorted({i.axes for rank in ranks for i in rank if i.kind == "collective"}, key=str)

    def draw(self, path: str | PathLike) -> None:
        """Write a picture of one step without clocks, a .png or .svg file: a chart of slots, a row for each rank.

        A forward takes one slot, a backward two, communication none. Of more than 32 ranks, one of each stage is drawn.
        ValueError for other endings, ProgramError if the program is wrong.
        """
        from minidl.plots import draw_program  # with matplotlib, for which only who draws waits

        draw_program(path, self)

    def draw_memory(self, path: str | PathLike, rank: int | None = None, scale: float = 1.0) -> None:
        """Write a picture of what `rank` holds over a step, by kind, a .png or .svg file.

        rank: by default one of each stage, of more than four stages some. scale: bytes of an activation, gradient or
        parameter relative to float32. ValueError for other endings, and for a program without costs.
        """
        from minidl.plots import draw_memory

        draw_memory(path, self, rank, scale)

    def __getstate__(self) -> dict:
        """For workers, which run a program and look up no costs."""
        return vars(self) | {"costs": None, "_ranks": self.edited, "_compiled": {}}

    def __repr__(self) -> str:
        edited = f", {len(self.edited):,} of them edited" if self.edited else ""
        return f"<Program of {self.plan}: {counted(self.world_size, 'list')} of instructions{edited}>"

    def __rich__(self) -> RenderableType:
        from minidl.parallel.listing import listing

        return listing(self)


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
