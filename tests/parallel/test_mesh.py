"""Mesh and Plan: where a rank stands, and the groups that this makes."""

import itertools

import numpy as np
import pytest

from minidl.parallel import Mesh, Plan, launch
from minidl.parallel.meetings import Members
from minidl.parallel.mesh import Grid
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
