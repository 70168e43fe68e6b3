"""network/shared_memory.py: what was timed, and what stands in for the rest."""

import pytest

from simulator.network import SharedMemory


def test_shared_memory_gives_the_times_that_were_measured():
    points = [(64, 1e-6), (1 << 20, 1e-4)]
    network = SharedMemory(
        {"all_reduce": points, "all_gather": [(64, 5e-6)], "alone": [(64, 2e-7)]}, {"all_reduce": [(64, 8e-6)]},
        [(64, 3e-6)], [(64, 4e-6)],
    )  # fmt: skip
    assert network.collective_seconds("all_reduce", (0, 1), 1 << 20, 2) == pytest.approx(1e-4)
    assert network.collective_seconds("all_gather", (0, 1), 64, 2) == 5e-6
    assert network.collective_seconds("all_to_all", (0, 1), 64, 2) == 1e-6  # not measured: as an all-reduce
    assert network.collective_seconds("all_reduce", (3,), 1 << 20, 2) == 2e-7
    assert network.layer_seconds("all_reduce", (0, 1), 64, 2) == network.layer_seconds("gather", (0, 1), 64, 2) == 8e-6
    assert (network.send_seconds(0, 1, 64), network.receive_seconds(0, 1, 64)) == (3e-6, 4e-6)
