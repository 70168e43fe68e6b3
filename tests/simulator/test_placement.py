"""placement.py: where the axes of a plan lie."""

from minidl.parallel import Plan
from simulator import Cluster
from simulator.placement import placement
from tests.simulator.hand_made import made_up


def test_axes_fill_nodes_from_the_tensor_axis_on():
    plan = Plan(data=16, tensor=4, pipeline=2, micro_batches=2)
    found = placement(plan, Cluster.load("dgx-a100", 128))
    assert str(found) == (
        "tensor 4: 4 in a DGX A100; data 16: 2 in a DGX A100 × 8 by InfiniBand; pipeline 2: 2 by InfiniBand"
    )
    assert [(place.axis, place.stride) for place in found.axes] == [("tensor", 1), ("data", 4), ("pipeline", 64)]


def test_over_several_levels_the_counts_of_an_axis_multiply_to_its_size():
    found = placement(Plan(data=12288), Cluster.load("meta-h100-80g-roce", 12288))
    assert str(found) == "data 12,288: 8 in a 8-GPU H100 node × 384 in a pod × 4 by aggregation switches"
    slices = placement(Plan(data=128), Cluster.load("tpu-v4", 128, devices_per_node=64))
    assert str(slices) == "data 128: 64 in a TPU v4 pod × 2 by data-centre network"


def test_ranks_that_share_memory_lie_on_no_levels():
    assert str(placement(Plan(data=2), made_up().cluster())) == ""
