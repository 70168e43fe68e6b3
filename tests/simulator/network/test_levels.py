"""network/levels.py: messages and collectives on nodes and what joins them, held to closed forms."""

from dataclasses import replace
from itertools import combinations
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.collectives import COSTS
from minidl.parallel.ranks import Ranks
from simulator import Cluster
from simulator.network import Level, Levels, Link
from simulator.network.spread import otherwise_placed
from simulator.network.topologies import Rings, Switch
from tests.simulator.hand_made import links

A, B, A2, B2 = 1e-6, 1e9, 1e-5, 1e8
LINKS = links(A, B, node_devices=4, slow_alpha=A2, slow_bandwidth=B2)
NAMES = sorted(COSTS)
MIB = 2**20


def one(link, topology=None, **options):
    """One level of eight devices."""
    return Levels((Level("node", 8, 8, topology or Switch(), link, **options),))


def nodes(devices=8, **options):
    """Nodes of so many devices on links without latency, 1 GB/s each; between nodes, adapters of 0.1 GB/s."""
    return Levels((
        Level("node", devices, devices, Switch(), Link(0.0, 1e9)),
        Level("network", inf, 1000, Switch(), Link(0.0, 1e8), **{"adapters": devices} | options),
    ))  # fmt: skip


def test_a_message_takes_alpha_and_its_bytes_of_the_link_it_crosses():
    assert LINKS.send_seconds(0, 3, 1000) == A + 1000 / B
    assert LINKS.send_seconds(3, 4, 1000) == A2 + 1000 / B2
    assert LINKS.receive_seconds(0, 3, 1000) == 0


def test_messages_of_all_devices_of_a_node_share_its_adapters():
    assert nodes(adapters=2).send_seconds(0, 8, 1000) == pytest.approx(1000 / (1e8 / 4))
    assert nodes(adapters=16).send_seconds(0, 8, 1000) == pytest.approx(1000 / 1e8)  # one message uses one adapter


def test_messages_along_a_rail_do_not_meet_what_is_oversubscribed():
    thin = nodes(oversubscription=4)
    assert thin.send_seconds(1, 9, 1000) == pytest.approx(4 * nodes().send_seconds(1, 9, 1000))
    rails = nodes(oversubscription=4, rails=True)
    assert rails.send_seconds(1, 9, 1000) == nodes().send_seconds(1, 9, 1000)
    assert rails.send_seconds(1, 10, 1000) == thin.send_seconds(1, 10, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_a_group_of_one_costs_nothing_on_links(name):
    assert LINKS.collective_seconds(name, (7,), 1e6, 8) == 0


def test_a_ring_within_a_node():
    for n in (2, 3, 4):
        found = LINKS.collective_seconds("all_reduce", range(n), 1e6, 4)
        assert found == pytest.approx(2 * (n - 1) * A + 2 * (n - 1) / n * 1e6 / B)
        for half in ("reduce_scatter", "all_gather"):
            found = LINKS.collective_seconds(half, range(n), 1e6, 4)
            assert found == pytest.approx((n - 1) * A + (n - 1) / n * 1e6 / B)


def test_a_ring_of_one_device_in_each_node_has_its_share_of_the_adapters():
    ring = Ranks(0, [(4, 3)])
    assert LINKS.collective_seconds("all_gather", ring, 1e6, 12) == pytest.approx(2 * A2 + 2 / 3 * 1e6 / B2)
    # Two of four devices are used: no ring has more than the adapters beside its device.
    assert LINKS.collective_seconds("all_gather", ring, 1e6, 2) == pytest.approx(2 * A2 + 2 / 3 * 1e6 / B2)
    two = nodes(4, adapters=2)
    assert two.collective_seconds("all_gather", ring, 1e6, 12) == pytest.approx(2 / 3 * 1e6 / (2e8 / 4))


def test_between_nodes_a_tree_takes_fewer_steps_than_a_ring():
    found = LINKS.collective_seconds("all_reduce", Ranks(0, [(4, 64)]), 1e6, 256)
    assert found == pytest.approx(2 * 6 * A2 + 2 * 63 / 64 * 1e6 / B2)


def test_over_nodes_the_fullest_link_decides_and_the_steps_add_up():
    steps, between = 2 * 3 * A + 2 * A2, 2 * 1 / 2 * (1e6 / 4) / B2
    assert LINKS.collective_seconds("all_reduce", range(8), 1e6, 8) == pytest.approx(steps + between)
    inside = 3 / 4 * 1e6 / B
    fast = links(A, B, node_devices=4, slow_alpha=A2, slow_bandwidth=B)
    assert fast.collective_seconds("all_gather", range(8), 1e6, 8) == pytest.approx(3 * A + A2 + inside)


def test_a_node_with_fewer_devices_has_fewer_links_for_the_same_bytes():
    found = LINKS.collective_seconds("all_reduce", range(5), 1e6, 5)
    assert found == pytest.approx(2 * 3 * A + 2 * A2 + 2 * 1 / 2 * 1e6 / B2)


def test_rings_of_two_ranks_on_a_node_share_the_adapters_that_rings_have():
    """vTrain's cluster of several nodes, GB/s a node: 96 for rings with one of its ranks, 24, 32, 50 with 2, 4, 8."""
    network = Cluster.load("vtrain-a100-80g-100g", 64).network
    nbytes = 1e9
    for tensor, local, bandwidth in ((8, 1, 96e9), (4, 2, 24e9), (2, 4, 32e9), (1, 8, 48e9)):
        group = Ranks(0, [(tensor, 8 * local)])
        found = network.collective_seconds("all_reduce", group, nbytes, 64)
        expected = tensor * 2 * 7 / 8 * nbytes / bandwidth
        assert found == pytest.approx(expected, rel=0.02)


def test_a_collective_has_a_start_a_ramp_and_a_floor():
    """FINDINGS' form of NCCL's all-reduce on A100: two passes, each of them half of it."""
    link = Link(2e-6, 1e9, start=5e-6, ramp=3e-9, floor=2e-5, floor_latency=4e-6)
    for n in (2, 4, 8):
        for passes, name in ((2, "all_reduce"), (1, "reduce_scatter")):
            floor, nbytes = passes * (2e-5 + 4e-6 * (n - 1)), 64 * MIB
            assert one(link).collective_seconds(name, range(n), 1, n) == pytest.approx(floor)
            steps, moved = passes * (5e-6 + 2e-6 * (n - 1)), passes * (n - 1) / n * nbytes / 1e9
            found = one(link).collective_seconds(name, range(n), nbytes, n)
            assert found == pytest.approx(steps + moved + passes * 3e-9 * nbytes**0.5)


def test_all_reduces_of_v100_run_in_as_many_rings_as_there_are():
    rings = (1, 2, 4, 5 / 3, 2, 4, 6)
    mesh = one(Link(0.0, 1e9), Rings(rings))
    for n, count in enumerate(rings, 2):
        assert mesh.collective_seconds("all_reduce", range(n), 1e6, n) == pytest.approx(2 * (n - 1) / n * 1e-3 / count)


def test_all_transfers_of_a_machine_share_its_bus():
    """2 (n - 1) S over the bus: a ring moves as much between each two of its n ranks."""
    machine, nbytes = Cluster.load("aws-p2-16xk80", 16).network, 1e9
    found = machine.collective_seconds("all_reduce", range(16), nbytes, 16)
    assert found == pytest.approx(2 * 15 * nbytes / 9e9, rel=0.01)
    assert machine.send_seconds(0, 1, nbytes) == pytest.approx(16 * nbytes / 9e9, rel=0.01)
    four = Cluster.load("aws-p2-16xk80", 4).network
    assert four.collective_seconds("all_reduce", range(4), nbytes, 4) == pytest.approx(2 * 3 * nbytes / 9e9, rel=0.01)


def test_switches_that_sum_send_each_byte_once_if_that_is_faster():
    link = Link(0.0, 1e9)
    summing, slow = one(link, in_network=0.8e9), one(link, in_network=0.1e9)
    assert summing.collective_seconds("all_reduce", range(8), 1e6, 8) == pytest.approx(1e6 / 0.8e9)
    assert summing.collective_seconds("all_gather", range(8), 1e6, 8) == pytest.approx(7 / 8 * 1e-3)
    assert slow.collective_seconds("all_reduce", range(8), 1e6, 8) == pytest.approx(14 / 8 * 1e-3)


def test_all_to_all_takes_the_bytes_of_all_ranks_of_a_node_out_of_it():
    found = nodes().collective_seconds("all_to_all", range(16), 1e6, 16)
    assert found == pytest.approx(8 * 1 / 2 * 1e6 / 8e8)


def test_neighbours_send_to_each_other_over_one_link_at_a_time():
    assert LINKS.layer_seconds("send", range(4), 1e6, 4) == pytest.approx(A + 1e6 / B)
    assert LINKS.layer_seconds("send", range(8), 1e6, 8) == pytest.approx(A + A2 + 1e6 / (4 * B2))
    assert LINKS.layer_seconds("recv", range(8), 1e6, 8) == 0


def test_pods_that_are_joined_by_fewer_links_slow_what_crosses_them():
    node, network = nodes().levels
    spine = Level("spine", inf, 10, Switch(), Link(0.0, 1e8), adapters=64, oversubscription=16)
    pods = Levels((node, replace(network, size=64), spine))
    within, across = (pods.collective_seconds("all_gather", Ranks(0, [(8, n)]), 1e6, 640) for n in (8, 80))
    assert within == pytest.approx(7 / 8 * 1e6 / 1e8)
    assert across == pytest.approx(9 / 10 * 1e6 / (64 / 16 / 8 * 1e8))  # 8 groups share a pod's 64 adapters


RANKS = st.sets(st.integers(0, 31), min_size=1, max_size=16).map(sorted)


@given(st.sampled_from(NAMES), RANKS, st.floats(0, 1e9), st.floats(0, 1e9))
def test_more_bytes_never_take_less_time(name, ranks, nbytes, more):
    less, greater = (LINKS.collective_seconds(name, ranks, n, 32) for n in (nbytes, nbytes + more))
    assert 0 <= less <= greater


@given(st.sampled_from(NAMES), RANKS, st.floats(1, 1e9), st.floats(1, 100), st.floats(1, 100))
def test_better_links_never_make_a_collective_slower(name, ranks, nbytes, node, network):
    better = links(A / node, B * node, 4, A2 / network, B2 * network)
    assert better.collective_seconds(name, ranks, nbytes, 32) <= LINKS.collective_seconds(name, ranks, nbytes, 32)


def test_on_a_torus_a_group_has_all_axes_that_it_spans():
    """Of a 4 x 4 x 4 slice of TPU v4, links of 45 GB/s: along two axes at once four of them, two hops on each."""
    network, nbytes = Cluster.load("tpu-v4", 64).network, 1e9
    for axes, group in ((1, Ranks(0, [(16, 4)])), (2, Ranks(0, [(1, 16)])), (3, Ranks(0, [(1, 64)]))):
        found = network.collective_seconds("all_gather", group, nbytes, 64)
        n = 4**axes
        assert found == pytest.approx((n - 1) / n * nbytes / (2 * axes * 45e9) + 2 * axes * 1e-6)


def test_slices_are_joined_by_the_data_centre():
    network, nbytes = Cluster.load("tpu-v4", 128, devices_per_node=64).network, 1e9
    hosts = network.levels[1]
    assert hosts.adapters == 16  # one for four chips
    found = network.collective_seconds("all_reduce", Ranks(5, [(64, 2)]), nbytes, 128)
    assert found == pytest.approx(nbytes / (12.5e9 * 0.85 / 4) + 2 * 20e-6)


@pytest.mark.parametrize(
    ("name", "devices", "mib", "seconds"),
    [
        ("vtrain-a100-node", 2, 1, 4.51e-05),
        ("vtrain-a100-node", 2, 64, 4.04e-04),
        ("vtrain-a100-node", 2, 1024, 5.453e-03),
        ("vtrain-a100-node", 8, 1, 9.215e-05),
        ("vtrain-a100-node", 8, 64, 5.796e-04),
        ("vtrain-a100-node", 8, 1024, 8.196e-03),
        ("dgx1-v100-16g", 2, 64, 2.999e-03),
        ("dgx1-v100-16g", 2, 1024, 4.762e-02),
        ("dgx1-v100-16g", 8, 64, 9.122e-04),
        ("dgx1-v100-16g", 8, 1024, 1.398e-02),
    ],
)
def test_all_reduces_take_what_nccl_took(name, devices, mib, seconds):
    """Look-up tables of NCCL in the vTrain repository, in place."""
    network = Cluster.load(name, 8).network
    found = network.collective_seconds("all_reduce", Ranks(0, [(1, devices)]), mib * MIB, devices)
    assert found == pytest.approx(seconds, rel=0.12)


@pytest.mark.parametrize(("tensor", "data"), [(6, 4), (3, 8), (5, 5), (12, 4), (8, 3), (4, 6), (7, 9)])
def test_of_groups_that_lie_otherwise_in_nodes_the_slowest_counts_whoever_is_asked(tensor, data):
    network, plan = Cluster.load("dgx-h100-80g", devices=tensor * data).network, Plan(tensor=tensor, data=data)
    for axis in ("tensor", "data"):
        groups = {plan.mesh(rank).ranks(axis) for rank in range(plan.workers)}
        alone = [network._of_group("all_reduce", group, 1e7, plan.workers) for group in groups]
        together = [network.collective_seconds("all_reduce", group, 1e7, plan.workers) for group in groups]
        assert together == [max(alone)] * len(groups)


@example(pipeline=2, data=4, tensor=6, node=8)  # a gap between stages, in which lie the ranks of others
@example(pipeline=2, data=6, tensor=5, node=8)  # neither the first nor the last group of its block lies in most nodes
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 4, 6, 8]))
def test_the_groups_that_are_looked_at_are_some_of_the_plan_s_and_reach_as_far_as_any(pipeline, data, tensor, node):
    plan = Plan(pipeline=pipeline, data=data, tensor=tensor)
    every = ("pipeline", "data", "tensor")
    for axes in (*combinations(every, 1), *combinations(every, 2)):
        groups = {plan.mesh(rank).ranks(*axes) for rank in range(plan.workers)}
        chosen = otherwise_placed(plan.mesh(0).ranks(*axes), (node, inf), plan.workers)
        assert set(chosen) <= groups

        def reach(group):
            return len({rank // node for rank in group})

        assert max(map(reach, chosen)) == max(map(reach, groups))
