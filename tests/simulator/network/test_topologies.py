"""network/topologies.py: rings on tori, held to what links can carry."""

from math import prod

import pytest

from simulator.network.topologies import FullyConnected, Switch, Torus, Way, slice_shape

CUBE = Torus((4, 4, 4), (True, True, True))


def test_a_switch_joins_all_and_a_full_mesh_has_a_ring_for_each_other():
    assert Switch().way(8, ((1, 8),)) == Way(1, 7, 1)
    assert FullyConnected().way(8, ((1, 8),)) == Way(7, 7, 7)
    assert FullyConnected().way(3, ((1, 3),)) == Way(2, 2, 2)


def test_a_ring_runs_both_ways_round_each_axis_it_spans():
    assert CUBE.way(4, ((1, 4),))[:2] == CUBE.way(4, ((16, 4),))[:2] == (2, 2)
    assert CUBE.way(16, ((1, 16),))[:2] == CUBE.way(16, ((16, 4), (1, 4)))[:2] == (4, 4)
    assert CUBE.way(64, ((1, 64),))[:2] == (6, 6)


def test_a_part_of_an_axis_has_lost_the_link_around_and_groups_between_each_other_share_links():
    assert CUBE.way(2, ((1, 2),))[:2] == (1, 1)
    ring = Torus((8,), (True,))
    assert ring.way(4, ((1, 4),))[:2] == (1, 3)
    assert ring.way(4, ((2, 4),))[:2] == (1, 4)  # half of two directions, two hops a step
    assert Torus((8,), (False,)).way(8, ((1, 8),))[:2] == (1, 7)


def test_a_group_that_lies_on_no_axes_is_a_line():
    assert CUBE.way(3, ((5, 3),))[:2] == CUBE.way(3, None)[:2] == (1, 2)


@pytest.mark.parametrize(("wraps", "cut"), [(True, 2), (False, 1)])
def test_what_each_sends_to_each_is_bound_by_the_links_that_cut_an_axis_in_two(wraps, cut):
    size = 8
    way = Torus((size,), (wraps,)).way(size, ((1, size),))
    crossing = (size / 2) * (size / 2) / size  # of half of the members, to half of them, in parts of a member's bytes
    assert (size - 1) / size / way.exchange == pytest.approx(crossing / cut)


def test_messages_that_all_send_as_far_share_the_links_on_their_way():
    assert CUBE.message(0, 1) == (1, 1) and CUBE.message(0, 16) == (1, 1)
    assert CUBE.message(0, 3) == (1, 1)  # around
    assert CUBE.message(0, 2) == (2, 2)
    assert Torus((4, 4), (False, False)).message(0, 15) == (6, 3)


def test_a_slice_is_the_box_of_the_shortest_sides():
    pod = (16, 16)
    assert slice_shape(256, pod) == pod and slice_shape(64, pod) == (8, 8) and slice_shape(32, pod) == (8, 4)
    assert slice_shape(68, pod) == (68,)  # no box of a pod
    v4 = (16, 16, 16)
    assert slice_shape(64, v4, 4) == (4, 4, 4) and slice_shape(8, v4, 4) == (2, 2, 2)
    assert slice_shape(192, v4, 4) == (12, 4, 4)  # of cubes, not 8 x 6 x 4
    assert prod(slice_shape(3456, v4, 4)) == 3456
