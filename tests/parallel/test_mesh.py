"""Mesh and Plan: where a rank stands, and the groups that this makes."""

import itertools

import numpy as np
import pytest

from minidl.parallel import Mesh, Plan, launch
from minidl.parallel.meetings import Members
from minidl.parallel.mesh import AXES, Grid, axis_name
from minidl.parallel.ranks import Ranks
from minidl.parallel.runtime.steps import connect

SIZES = {"pipeline": 2, "data": 3, "tensor": 2}


def everyone():
    return [Mesh(SIZES, rank) for rank in range(12)]


def test_every_rank_has_coordinates_of_its_own_and_finds_its_way_back():
    places = [tuple(mesh.coordinate(axis) for axis in ("pipeline", "data", "tensor")) for mesh in everyone()]
    assert places == list(itertools.product(range(2), range(3), range(2)))  # tensor neighbours are adjacent ranks
    for mesh, (p, d, t) in zip(everyone(), places, strict=True):
        assert mesh.rank_at() == mesh.rank
        assert all(other.rank_at(pipeline=p, data=d, tensor=t) == mesh.rank for other in everyone())


def test_an_absent_axis_has_size_one_and_a_group_of_one():
    mesh = Mesh(SIZES, 5)
    assert mesh.world_size == 12
    for axis in ("context", "expert"):
        assert (mesh.size(axis), mesh.coordinate(axis), mesh.ranks(axis), mesh.group(axis).size) == (1, 0, (5,), 1)


@pytest.mark.parametrize("axes", [("data",), ("tensor",), ("pipeline", "data"), ("tensor", "pipeline"), ()])
def test_groups_of_the_same_axes_cut_the_ranks_into_disjoint_parts(axes):
    groups = {mesh.ranks(*axes) for mesh in everyone()}
    assert sorted(rank for group in groups for rank in group) == list(range(12))
    for mesh in everyone():
        group = mesh.group(*axes)
        assert mesh.ranks(*axes)[group.rank] == mesh.rank and group.size == len(mesh.ranks(*axes))
        assert mesh.group(*axes) is group
        assert group.axes == axes


def test_the_world_is_the_group_of_all_axes():
    mesh = Mesh(SIZES, 7)
    assert mesh.world.size == 12 and mesh.world.rank == 7


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (3, 2), (1, 6), (6, 1)])
def test_an_axis_laid_out_as_a_grid_has_groups_along_its_rows_and_its_columns(rows, columns):
    along_rows, along_columns = (Grid("tensor", rows, columns, along) for along in ("rows", "columns"))
    meshes = [Mesh({"data": 2, "tensor": 6}, rank) for rank in range(12)]
    for mesh in meshes:
        replica, place = divmod(mesh.rank, 6)
        row, column = divmod(place, columns)
        assert mesh.grid_coordinates(along_rows) == mesh.grid_coordinates(along_columns) == (row, column)
        assert mesh.ranks(along_rows) == tuple(6 * replica + r * columns + column for r in range(rows))
        assert mesh.ranks(along_columns) == tuple(6 * replica + row * columns + c for c in range(columns))
        assert (mesh.group(along_rows).rank, mesh.group(along_columns).rank) == (row, column)
        assert mesh.group(along_rows).axes == (along_rows,)


def test_a_grid_joins_other_axes():
    mesh = Mesh({"data": 2, "tensor": 4}, 5)  # in the second replica
    assert mesh.ranks("data", Grid("tensor", 2, 2, "rows")) == (1, 3, 5, 7)
    assert mesh.ranks(Grid("tensor", 2, 2, "columns"), "data") == (0, 1, 4, 5)


@pytest.mark.parametrize("sizes", [SIZES, {"pipeline": 3, "data": 2, "context": 2, "expert": 2, "tensor": 4}])
def test_a_group_is_the_same_as_strides_and_as_a_list(sizes):
    whole = np.arange(np.prod([sizes.get(axis, 1) for axis in AXES])).reshape([sizes.get(axis, 1) for axis in AXES])
    several = [
        ("pipeline", (0, sizes["pipeline"] - 1)),
        ("data", (1,)),
        Grid("tensor", 2, sizes["tensor"] // 2, "rows"),
    ]
    for count in range(4):
        for axes in itertools.combinations([*AXES, *several], count):
            if len({axis_name(axis) for axis in axes}) < len(axes):
                continue
            for rank in (0, 5, whole.size - 1):
                mesh = Mesh(sizes, rank)
                places = [[mesh.coordinate(axis)] for axis in AXES]
                for axis in axes:
                    along = range(sizes.get(axis, 1)) if isinstance(axis, str) else axis[1]
                    if isinstance(axis, Grid):
                        along = range(mesh.coordinate("tensor") % axis.columns, sizes["tensor"], axis.columns)
                    places[AXES.index(axis_name(axis))] = along
                listed, found = tuple(whole[np.ix_(*places)].ravel().tolist()), mesh.ranks(*axes)
                assert found == listed and tuple(found) == listed and len(found) == len(listed)
                assert [found[i] for i in range(-len(listed), len(listed))] == [*listed, *listed]
                assert [rank for rank in range(-3, whole.size + 3) if rank in found] == sorted(listed)
                assert [found.index(rank) for rank in listed] == list(range(len(listed)))


def test_ranks_at_uneven_places_are_listed():
    found = Mesh({"pipeline": 4, "data": 2}, 1).ranks(("pipeline", (0, 1, 3)), "data")
    assert found == (0, 1, 2, 3, 6, 7) and found.listed == (0, 1, 2, 3, 6, 7) and found.dims == ()
    assert (found.index(6), 4 in found, found[-1], found[1:3]) == (4, False, 7, (1, 2))


def test_ranks_that_are_the_same_are_equal_however_they_were_made():
    for one, other in [
        (Ranks(3, ((8, 2), (2, 4))), Ranks(3, ((2, 8),))),
        (Ranks(3, ((2, 8), (1, 1))), Ranks(3, ((100, 1), (2, 8)))),
        (Mesh({"data": 4, "tensor": 2}).ranks("data", "tensor"), Ranks(0, ((1, 8),))),
    ]:
        assert one == other and hash(one) == hash(other) and one.dims == other.dims
    assert Ranks(3, ((2, 8),)) != Ranks(3, ((2, 7),)) and Ranks(0) != (1,) and Ranks(0) == (0,)
    with pytest.raises(ValueError, match=r"rank 4 is not among Ranks\(3, 5\)"):
        Ranks(3, ((2, 2),)).index(4)
    with pytest.raises(IndexError, match="2 ranks, and none at 2"):
        Ranks(3, ((2, 2),))[2]


def test_the_groups_of_a_hundred_thousand_ranks_are_a_few_numbers():
    mesh = Mesh({"pipeline": 16, "data": 800, "tensor": 8}, 12345)
    assert mesh.ranks("data").dims == ((8, 800),) and mesh.ranks("pipeline", "tensor").dims == ((6400, 16), (1, 8))
    assert mesh.ranks(*AXES).dims == ((1, 102400),) and mesh.index("data") == 12345 % 6400 // 8


def test_the_members_that_are_run_are_found_along_a_grid():
    members = Members(Plan(tensor=4), [0, 1, 3])
    assert members(1, (Grid("tensor", 2, 2, "rows"),)) == (1, 3)
    assert members(0, (Grid("tensor", 2, 2, "rows"),)) == (0,)


def sums_along_a_grid(world):
    mesh = Mesh({"data": 2, "tensor": 4}, world.rank, connect(world))
    groups = [mesh.group(Grid("tensor", 2, 2, along)) for along in ("rows", "columns")]
    return [int(group.all_reduce(np.array([world.rank]))[0]) for group in groups], [group.name for group in groups]


@pytest.mark.usefixtures("warm_workers")
def test_the_groups_of_a_grid_communicate_among_themselves_and_have_names_to_read():
    for rank, (sums, names) in enumerate(launch(sums_along_a_grid, 8)):
        first = rank - rank % 4
        row, column = divmod(rank % 4, 2)
        assert sums == [2 * (first + column) + 2, 2 * (first + 2 * row) + 1]
        assert names == ["tensor as 2 × 2 along its rows", "tensor as 2 × 2 along its columns"]


def test_a_grid_that_does_not_fit_its_axis_is_refused():
    with pytest.raises(ValueError, match="a grid of 2 × 2 does not fit tensor=6"):
        Mesh({"tensor": 6}).group(Grid("tensor", 2, 2, "rows"))


def test_a_mesh_refuses_unknown_axes_and_ranks_in_one_sentence():
    with pytest.raises(ValueError, match="unknown mesh axis model: the axes are pipeline, data, context"):
        Mesh({"model": 2})
    with pytest.raises(ValueError, match="rank 12 is not on a mesh of 12 ranks"):
        Mesh(SIZES, 12)
    for call in (Mesh(SIZES).size, Mesh(SIZES).coordinate, Mesh(SIZES).group):
        with pytest.raises(ValueError, match="unknown mesh axis 'model'"):
            call("model")


def test_a_plan_has_as_many_workers_as_its_mesh_has_ranks():
    for data, pipeline, tensor in itertools.product((1, 2, 4), repeat=3):
        plan = Plan(data=data, pipeline=pipeline, tensor=tensor)
        assert plan.workers == data * pipeline * tensor == plan.mesh().world_size
        assert plan.axes == {k: v for k, v in (("pipeline", pipeline), ("data", data), ("tensor", tensor)) if v > 1}


def test_a_plan_reads_as_a_sentence():
    assert str(Plan()) == "one worker"
    assert str(Plan(data=2, tensor=4)) == "data 2 × tensor 4"
    assert str(Plan(pipeline=2, micro_batches=4, schedule="gpipe")) == "pipeline 2, gpipe, 4 micro-batches"
