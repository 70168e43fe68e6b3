"""Program: the instructions of every rank, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import TYPE_CHECKING

from minidl.display import Displayed
from minidl.parallel.instructions import Instruction
from minidl.parallel.instructions import buffers as B
from minidl.parallel.layout import Layout
from minidl.parallel.machine import Compiled, Entry, compile_list
from minidl.parallel.mesh import Axis, Mesh
from minidl.parallel.plan import Plan
from minidl.trace import MESSAGES
from minidl.units import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minidl.parallel.costs import Costs


PARTS = ("prologue", "step", "epilogue")  # of a list
PEERS = {"send": "to", "receive": "source"}  # by the kind of a message, the field that says who is at its other end


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

    plan, layout: what the program was made from. make: the list of a rank under a plan, given its mesh. trains: it is
    to update every parameter that is trained. costs: what its instructions call and its buffers hold; None where that
    is not known. edited: ranks whose list was replaced; the lists of all others are those of `original`.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        make: Callable[[Plan, Mesh], RankProgram],
        trains: bool,
        costs: Costs | None = None,
        edited: dict[int, RankProgram] | None = None,
        original: Program | None = None,
    ):
        self.plan, self.layout, self.make, self.trains, self.costs = plan, layout, make, trains, costs
        self.edited, self._original = edited or {}, original
        self._ranks: dict[int, RankProgram] = dict(self.edited)
        self._compiled: dict[tuple[int, str], Compiled] = {}

    @property
    def original(self) -> Program:
        """The program before any list was replaced."""
        return self if self._original is None else self._original

    @property
    def world_size(self) -> int:
        return self.plan.workers

    def __len__(self) -> int:
        return self.world_size

    def __getitem__(self, rank: int) -> RankProgram:
        if rank not in range(self.world_size):
            raise IndexError(f"there are the ranks 0 to {self.world_size - 1}, and no {rank!r}")
        if rank not in self._ranks:
            self._ranks[rank] = self._original[rank] if self._original is not None else self._made(rank)
        return self._ranks[rank]

    def _made(self, rank: int) -> RankProgram:
        """Of the ranks of a stage the first has its list made; the others have the same but for their peers."""
        mesh = self.plan.mesh(rank)
        first = mesh.rank_at(data=0, context=0, expert=0, tensor=0)
        if rank == first:
            return self.make(self.plan, mesh)
        own, away = self[first], rank - first
        return RankProgram(*(tuple([_moved(i, away) for i in getattr(own, part)]) for part in PARTS))

    def persistent(self, rank: int) -> frozenset[B.BufferName]:
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
                found = dict(self.compiled(first, part))
                if MESSAGES in found:
                    messages = (i for i in own if i.lane == MESSAGES)
                    found[MESSAGES] = tuple(map(Entry, messages, (entry.after for entry in found[MESSAGES])))
            self._compiled[rank, part] = found
        return self._compiled[rank, part]

    def edit(self, lists: dict[int, RankProgram]) -> Program:
        """The same program, but that these ranks have these lists."""
        if not isinstance(lists, Mapping):
            raise TypeError(f"edit needs a dict of ranks and their RankPrograms, not {lists!r}")
        for rank, own in lists.items():
            if rank not in range(self.world_size):
                raise ValueError(f"there are the ranks 0 to {self.world_size - 1}: rank {rank!r} cannot be edited")
            if not (isinstance(own, RankProgram) and all(isinstance(i, Instruction) for i in own)):
                raise TypeError(f"rank {rank} needs a RankProgram of instructions, not {own!r}")
        return Program(self.plan, self.layout, self.make, self.trains, self.costs, self.edited | lists, self.original)

    def under(self, plan: Plan) -> Program:
        """The program of another plan whose chunks and buckets are the same; unedited."""
        return Program(plan, self.layout, self.make, self.trains, self.costs)

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

    def draw_memory(self, path: str | PathLike, rank: int | None = None) -> None:
        """Write a picture of what `rank` holds over a step, by kind, a .png or .svg file.

        rank: by default one of each stage, of more than four stages some. ValueError for other endings, and for a
        program without costs.
        """
        from minidl.plots import draw_memory

        draw_memory(path, self, rank)

    def __getstate__(self) -> dict:
        """For workers, which run a program and look up no costs."""
        return vars(self) | {"costs": None, "_ranks": self.edited, "_compiled": {}}

    def __repr__(self) -> str:
        edited = f", {len(self.edited):,} of them edited" if self.edited else ""
        return f"<Program of {self.plan}: {counted(self.world_size, 'list')} of instructions{edited}>"

    def __rich__(self) -> RenderableType:
        from minidl.parallel.listing import listing

        return listing(self)


def _moved(i: Instruction, away: int) -> Instruction:
    """The same for a peer so far away from its own, if it has one; with the very same `work`."""
    if i.kind not in PEERS:
        return i
    work, made = i.work, object.__new__(type(i))
    vars(made).update(vars(i), work=work)
    vars(made)[PEERS[i.kind]] += away
    return made


def edited(program: Program, edit: Callable[[Program], Program] | None) -> Program:
    """What a user's `edit` makes of a program; None leaves it as it is.

    TypeError unless it is a Program, ValueError unless it is this one, edited.
    """
    if edit is None:
        return program
    if not callable(edit):
        raise TypeError(f"edit must be a function of a Program, not {edit!r}")
    made = edit(program)
    if not isinstance(made, Program):
        raise TypeError(f"edit must be a function that returns the Program it changed, not a {type(made).__name__}")
    if made.original is not program.original:
        raise ValueError(f"edit must return the Program that it is given, edited: {made!r} is another one")
    return made
