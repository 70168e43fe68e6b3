"""The ranks laid out as an array with named axes, and the groups that this makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from minidl.parallel.group import ProcessGroup
from minidl.parallel.meta_group import MetaGroup
from minidl.parallel.ranks import Ranks

AXES = ("pipeline", "data", "context", "expert", "tensor")  # slowest first: tensor neighbours are adjacent ranks
REPLICAS = ("data", "context", "expert")  # along which ranks work on other data with, mostly, the same parameters
SAMPLES = ("data", "expert")  # along which these are other samples; along the rest, other parts of the same ones


class Grid(NamedTuple):
    """The ranks of `axis` laid out as `rows` × `columns`, row by row; of those, a whole row or column of the grid.

    along: the ranks that differ from this one in their row alone ("rows": they are a column of the grid), or in their
    column alone ("columns"). All ranks name the same value, and each has its own group.
    """

    axis: str
    rows: int
    columns: int
    along: Literal["rows", "columns"]

    def __str__(self) -> str:
        return f"{self.axis} as {self.rows} × {self.columns} along its {self.along}"


Axis = str | tuple[str, tuple[int, ...]] | Grid  # an axis, some coordinates along it: ("pipeline", (0, 3)), or a grid


Connect = Callable[["Mesh", tuple[Axis, ...]], ProcessGroup]


class Mesh:
    """Where `rank` stands among all ranks.

    sizes: the size of each axis; an absent axis has size 1. connect: makes the process group of the axes it is given;
    by default groups only record, as on the meta device. sequence_parallel: whether layers are to slice sequences over
    the tensor axis, as the plan says.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        rank: int = 0,
        connect: Connect | None = None,
        sequence_parallel: bool = False,
    ):
        unknown = set(sizes) - set(AXES)
        if unknown:
            raise ValueError(f"unknown mesh axis {', '.join(sorted(unknown))}: the axes are {', '.join(AXES)}")
        self.shape = tuple(sizes.get(axis, 1) for axis in AXES)
        self.rank, self.sequence_parallel = rank, sequence_parallel
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is not on a mesh of {self.world_size} ranks")
        self._strides = _strides(self.shape)
        self._coordinates = [rank // s % size for s, size in zip(self._strides, self.shape, strict=True)]
        self._connect = connect or _record
        self._groups: dict[tuple[Axis, ...], ProcessGroup] = {}
        self._members: dict[tuple[Axis, ...], Ranks] = {}

    @property
    def world_size(self) -> int:
        return prod(self.shape)

    def size(self, axis: str) -> int:
        return self.shape[_axis(axis)]

    def coordinate(self, axis: str) -> int:
        """This rank's place along `axis`, from 0."""
        return self._coordinates[_axis(axis)]

    def index(self, *axes: Axis) -> int:
        """This rank's place among `ranks(*axes)`."""
        return self.ranks(*axes).index(self.rank)

    @property
    def replica(self) -> int:
        """This rank's place among those that work on other data than it."""
        return self.index(*REPLICAS)

    def rank_at(self, **coordinates: int) -> int:
        """The rank with these coordinates, and this rank's own on the axes not named."""
        rank = self.rank
        for axis, coordinate in coordinates.items():
            number = _axis(axis)
            rank += (coordinate - self._coordinates[number]) * self._strides[number]
        return rank

    def ranks(self, *axes: Axis) -> Ranks:
        """The ranks that differ from this one at most along `axes`, in order.

        Of an axis with some coordinates named, those there, of which this one need not be. ValueError for a grid that
        has more or fewer places than its axis.
        """
        if axes not in self._members:
            places: list[Sequence[int]] = [(own,) for own in self._coordinates]
            for axis in axes:
                places[_axis(axis_name(axis))] = self._along(axis)
            self._members[axes] = Ranks.at(places, self._strides)
        return self._members[axes]

    def grid_coordinates(self, grid: Grid) -> tuple[int, int]:
        """This rank's row and column in the grid."""
        if grid.rows * grid.columns != self.size(grid.axis):
            raise ValueError(f"a grid of {grid.rows} × {grid.columns} does not fit {grid.axis}={self.size(grid.axis)}")
        return divmod(self.coordinate(grid.axis), grid.columns)

    def has_group(self, axis: str) -> bool:
        """Whether a group along `axis`, or along a part of it, has been asked for."""
        return any(axis == axis_name(a) for axes in self._groups for a in axes)

    def _along(self, axis: Axis) -> Sequence[int]:
        """The coordinates on the axis that is named of those who differ from this rank along `axis`."""
        if isinstance(axis, str):
            return range(self.size(axis))
        if not isinstance(axis, Grid):
            return axis[1]
        row, column = self.grid_coordinates(axis)
        if axis.along == "rows":
            return range(column, self.size(axis.axis), axis.columns)
        return range(row * axis.columns, (row + 1) * axis.columns)

    @property
    def world(self) -> ProcessGroup:
        """The group of all ranks."""
        return self.group(*AXES)

    def group(self, *axes: Axis) -> ProcessGroup:
        """The process group of `ranks(*axes)`."""
        if axes not in self._groups:
            self._groups[axes] = self._connect(self, axes)
        return self._groups[axes]


def axis_name(axis: Axis) -> str:
    """The axis of which it is all, or some coordinates, or a row or column."""
    return axis if isinstance(axis, str) else axis[0]


def _axis(name: str) -> int:
    if name not in AXES:
        raise ValueError(f"unknown mesh axis {name!r}: the axes are {', '.join(AXES)}")
    return AXES.index(name)


@lru_cache(256)
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Between neighbours along each axis."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _record(mesh: Mesh, axes: tuple[Axis, ...]) -> MetaGroup:
    ranks = mesh.ranks(*axes)
    return MetaGroup(ranks.index(mesh.rank), len(ranks), axes)
