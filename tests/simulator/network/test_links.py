"""network/links.py: messages and collectives on links, held to closed forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel.collectives import COSTS
from tests.simulator.hand_made import links

A, B, A2, B2 = 1e-6, 1e9, 1e-5, 1e8
LINKS = links(A, B, node_devices=4, slow_alpha=A2, slow_bandwidth=B2)
NAMES = sorted(COSTS)


def test_a_message_takes_alpha_and_its_bytes_of_the_link_it_crosses():
    assert LINKS.send_seconds(0, 3, 1000) == A + 1000 / B
    assert LINKS.send_seconds(3, 4, 1000) == A2 + 1000 / B2
    assert LINKS.receive_seconds(0, 3, 1000) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_group_of_one_costs_nothing_on_links(name):
    assert LINKS.collective_seconds(name, (7,), 1e6) == 0


def test_a_ring_within_a_node():
    for n in (2, 3, 4):
        found = LINKS.collective_seconds("all_reduce", range(n), 1e6)
        assert found == pytest.approx(2 * (n - 1) * A + 2 * (n - 1) / n * 1e6 / B)
        for half in ("reduce_scatter", "all_gather"):
            found = LINKS.collective_seconds(half, range(n), 1e6)
            assert found == pytest.approx((n - 1) * A + (n - 1) / n * 1e6 / B)


def test_a_ring_of_one_device_in_each_node_runs_on_the_network_alone():
    found = LINKS.collective_seconds("all_reduce", (0, 4, 8), 1e6)
    assert found == pytest.approx(4 * A2 + 4 / 3 * 1e6 / B2)


def test_over_nodes_of_several_devices_each_device_carries_its_share_between_the_nodes():
    inside = 2 * 3 * A + 2 * 3 / 4 * 1e6 / B
    between = 2 * 1 * A2 + 2 * 1 / 2 * (1e6 / 4) / B2
    assert LINKS.collective_seconds("all_reduce", range(8), 1e6) == pytest.approx(inside + between)
    # Gathering first between the nodes, 1/4 of the bytes by each device, then within them.
    inside, between = 3 * A + 3 / 4 * 1e6 / B, A2 + 1 / 2 * (1e6 / 4) / B2
    assert LINKS.collective_seconds("all_gather", range(8), 1e6) == pytest.approx(inside + between)


def test_a_node_with_fewer_devices_has_fewer_links_for_the_same_bytes():
    inside = 2 * 3 * A + 2 * 3 / 4 * 1e6 / B
    between = 2 * A2 + 2 * 1 / 2 * 1e6 / B2
    assert LINKS.collective_seconds("all_reduce", range(5), 1e6) == pytest.approx(inside + between)


RANKS = st.sets(st.integers(0, 31), min_size=1, max_size=16).map(sorted)


@given(st.sampled_from(NAMES), RANKS, st.floats(0, 1e9), st.floats(0, 1e9))
def test_more_bytes_never_take_less_time(name, ranks, nbytes, more):
    assert 0 <= LINKS.collective_seconds(name, ranks, nbytes) <= LINKS.collective_seconds(name, ranks, nbytes + more)


@given(st.sampled_from(NAMES), RANKS, st.floats(1, 1e9), st.floats(1, 100), st.floats(1, 100))
def test_better_links_never_make_a_collective_slower(name, ranks, nbytes, node, network):
    better = links(A / node, B * node, 4, A2 / network, B2 * network)
    assert better.collective_seconds(name, ranks, nbytes) <= LINKS.collective_seconds(name, ranks, nbytes)
