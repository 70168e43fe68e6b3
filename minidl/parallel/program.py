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
from minidl.parallel.machine import Entry, Schedule, compile_list
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.schedules import SCHEDULES
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
    its instructions call and its buffers hold; None where that is not known. edited: ranks whose list was replaced.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        make: Callable[[Mesh], RankProgram],
        trains: bool,
        costs: Costs | None = None,
        edited: dict[int, RankProgram] | None = None,
    ):
        self.plan, self.layout, self._make, self.trains, self.costs = plan, layout, make, trains, costs
        self.edited = edited or {}
        self._ranks: dict[int, RankProgram] = dict(self.edited)
        self._schedules: dict[tuple[int, str], Schedule] = {}

    @property
    def world_size(self) -> int:
        return self.plan.workers

    def __len__(self) -> int:
        return self.world_size

    def __getitem__(self, rank: int) -> RankProgram:
        if rank not in range(self.world_size):
            raise IndexError(f"there are the ranks 0 to {self.world_size - 1}, and no {rank!r}")
        if rank not in self._ranks:
            self._ranks[rank] = self._make(self.plan.mesh(rank))
        return self._ranks[rank]

    def persistent(self, rank: int) -> frozenset[B.Buffer]:
        """The buffers of `rank` that stay from step to step."""
        stage = self.plan.mesh(rank).coordinate("pipeline")
        chunks = self.layout.stages[stage]
        places = [(chunk, b) for chunk in chunks for b in range(len(self.layout.buckets[chunk]))]
        kept = (held(*place) for place in places for held in (B.parameters, B.state))
        return frozenset((*kept, *map(B.statistics, chunks)))

    def schedule(self, rank: int, part: str = "step") -> Schedule:
        """A part of the list of `rank`, lane by lane. HazardError says what is wrong with it."""
        if (rank, part) not in self._schedules:
            own = getattr(self[rank], part)
            first = self.plan.mesh(rank).rank_at(data=0, context=0, expert=0, tensor=0)
            if rank == first or self.edited:
                found = compile_list(own, self.persistent(rank))
            else:  # which differs from that of the first rank of its stage by its peers alone
                found = {
                    lane: tuple(map(Entry, (i for i in own if i.lane == lane), (entry.after for entry in entries)))
                    for lane, entries in self.schedule(first, part).items()
                }
            self._schedules[rank, part] = found
        return self._schedules[rank, part]

    def edit(self, lists: dict[int, RankProgram]) -> Program:
        """The same program, but that these ranks have these lists."""
        for rank, own in lists.items():
            if rank not in range(self.world_size):
                raise ValueError(f"there are the ranks 0 to {self.world_size - 1}: rank {rank!r} cannot be edited")
            if not (isinstance(own, RankProgram) and all(isinstance(i, Instruction) for i in own)):
                raise TypeError(f"rank {rank} needs a RankProgram of instructions, not {own!r}")
        return Program(self.plan, self.layout, self._make, self.trains, self.costs, self.edited | lists)

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
    def axes(self) -> list[tuple[str, ...]]:
        """The axes over which its instructions meet, in an order that all ranks agree on."""
        ranks = (self[rank] for rank in self.representatives())
        return sorted({i.axes for rank in ranks for i in rank if i.kind == "collective"})

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
        return vars(self) | {"costs": None, "_ranks": self.edited, "_schedules": {}}

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
        step = (rank.passes(), rank.reduce_loss(), rank.update(clip, norms), rank.gather())
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
        self.sharded = plan.optimizer_shards > 1
        self.trained = layout.trained(self.stage)
        self._peers: dict[int, int] = {}

    def peer(self, chunk: int) -> int:
        """The rank that holds `chunk` of the same replica."""
        if chunk not in self._peers:
            self._peers[chunk] = self.mesh.rank_at(pipeline=self.layout.stage_of(chunk))
        return self._peers[chunk]

    def passes(self) -> Iterator[Instruction]:
        """Forwards and backwards in the schedule's order; a stage that holds several chunks takes them in turn."""
        order = list(SCHEDULES[self.plan.schedule](self.stage, len(self.layout.stages), self.plan.micro_batches))
        backwards = [m for kind, m in order if kind == "backward"]
        for kind, m in order:
            if kind == "forward":
                for chunk in self.chunks:
                    yield from self.forward(chunk, m, first_of_step=m == order[0][1])
            else:
                for chunk in reversed(self.chunks):
                    if self.layout.trained_buckets(chunk):
                        yield from self.backward(chunk, m, m == backwards[0], m == backwards[-1])

    def forward(self, chunk: int, m: int, first_of_step: bool) -> Iterator[Instruction]:
        last, trained = self.layout.last_bucket(chunk), self.layout.trained_buckets(chunk)
        # Bucket by bucket where parameters were just updated, so that the later ones are gathered meanwhile.
        cuts = [(b, b) for b in range(last + 1)] if self.sharded and first_of_step else [(0, last)]
        run = [I.Forward(chunk, m, *cut, trained.start) for cut in cuts]
        yield from self.between(chunk, m, run, I.Loss(chunk, m, last, bool(trained)))

    def infer(self) -> Iterator[Instruction]:
        for m in range(self.plan.micro_batches):
            for chunk in self.chunks:
                last = self.layout.last_bucket(chunk)
                yield from self.between(chunk, m, [I.Infer(chunk, m, last)], I.Score(chunk, m, last))

    def between(self, chunk: int, m: int, run: list[Instruction], loss: Instruction) -> Iterator[Instruction]:
        """`run` between its input and what follows it: the next chunk, or after the last chunk `loss`."""
        if chunk == 0:
            yield I.LoadInput(m)
        else:
            yield I.RecvActivation(chunk, m, self.peer(chunk - 1))
        yield from run
        if chunk < self.last_chunk:
            yield I.SendActivation(chunk, m, self.layout.last_bucket(chunk), self.peer(chunk + 1))
        else:
            yield I.LoadTarget(m)
            yield loss

    def backward(self, chunk: int, m: int, first_of_step: bool, last_of_step: bool) -> Iterator[Instruction]:
        trained, gives = self.layout.trained_buckets(chunk), self.layout.wants_gradient(chunk)
        if chunk < self.last_chunk:
            yield I.RecvGradient(chunk, m, trained[-1], self.peer(chunk + 1))
        reduces = last_of_step and self.plan.data > 1
        reduce = I.ReduceScatterGradients if self.sharded else I.ReduceGradients
        if reduces and not gives:
            # Bucket by bucket, so that each is reduced while the blocks before it still go backward.
            for b in reversed(trained):
                yield I.Backward(chunk, m, b, b, not first_of_step, b > trained[0])
                yield reduce(chunk, b)
            return
        yield I.Backward(chunk, m, trained[0], trained[-1], not first_of_step, gives)
        if gives:
            yield I.SendGradient(chunk, m, self.peer(chunk - 1))
        if reduces:
            # The rank before waits for this gradient, so it goes first; the reductions fill the pipeline's drain.
            for b in reversed(trained):
                yield reduce(chunk, b)

    def reduce_loss(self) -> Iterator[Instruction]:
        yield I.ReduceLoss(tuple(range(self.plan.micro_batches)) if self.last_chunk in self.chunks else ())

    def update(self, clip: bool, norms: bool) -> Iterator[Instruction]:
        if clip:
            yield I.ReduceNorm(self.trained, self.sharded)
        if norms:
            yield I.MeasureParameters(self.trained, clip)
            yield I.ReduceParameterNorms(self.trained, self.sharded)
        yield I.OptimizerStep(self.trained, clip, norms, self.sharded)

    def gather(self) -> Iterator[Instruction]:
        """In the next forward's order: it reads what these write, and so waits for each (machine.py)."""
        if self.sharded:
            for place in self.trained:
                yield I.GatherParameters(*place)

    def broadcast(self) -> Iterator[Instruction]:
        """The statistics of the first replica, for all."""
        if self.plan.data > 1:
            for chunk in self.chunks:
                yield I.BroadcastStatistics(chunk)
