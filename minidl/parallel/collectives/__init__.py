"""The textbook algorithms for collectives, written on send and recv, each beside its cost.

In shared memory they lose to `runtime/shared.py`, where every rank reads every other's memory. They are here to be
read, and because networks run them: the simulator prices a collective by the costs of COSTS. Most are described by
R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective Communication Operations in MPICH", Int. J. High
Performance Computing Applications 19(1), 2005.

Every function is called by all ranks of `group`, with a contiguous NumPy array of the same dtype and, but for an
all-to-all of uneven parts, the same shape. `nbytes` in a cost is that of the whole tensor: the one that is gathered,
scattered, reduced or broadcast.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl.parallel.collectives.cost import Cost
from minidl.parallel.collectives.flat import (
    flat_all_reduce,
    flat_all_reduce_cost,
    flat_gather,
    flat_gather_cost,
    flat_scatter,
    flat_scatter_cost,
    pairwise_all_to_all,
    pairwise_all_to_all_cost,
)
from minidl.parallel.collectives.ring import (
    ring_all_gather,
    ring_all_gather_cost,
    ring_all_reduce,
    ring_all_reduce_cost,
    ring_broadcast,
    ring_broadcast_cost,
    ring_reduce,
    ring_reduce_cost,
    ring_reduce_scatter,
    ring_reduce_scatter_cost,
    ring_shift,
    ring_shift_cost,
)
from minidl.parallel.collectives.tree import (
    bruck_all_gather,
    bruck_all_gather_cost,
    dissemination_barrier,
    dissemination_barrier_cost,
    recursive_doubling_all_reduce,
    recursive_doubling_all_reduce_cost,
    tree_all_reduce,
    tree_all_reduce_cost,
    tree_broadcast,
    tree_broadcast_cost,
    tree_gather,
    tree_gather_cost,
    tree_reduce,
    tree_reduce_cost,
    tree_scatter,
    tree_scatter_cost,
)

CostFunction = Callable[[int, float], Cost]


def receive_cost(size: int, nbytes: float) -> Cost:
    """What a receive costs by itself: the message is paid for with its send."""
    return Cost(0, 0.0)


COSTS: dict[str, CostFunction] = {
    "all_reduce": ring_all_reduce_cost,
    "reduce_scatter": ring_reduce_scatter_cost,
    "all_gather": ring_all_gather_cost,
    "broadcast": ring_broadcast_cost,
    "reduce": ring_reduce_cost,
    "all_to_all": pairwise_all_to_all_cost,
    "gather": flat_gather_cost,
    "scatter": flat_scatter_cost,
    "send": ring_shift_cost,
    "recv": receive_cost,
    "barrier": dissemination_barrier_cost,
}

TREE_COSTS: dict[str, CostFunction] = {
    "all_reduce": recursive_doubling_all_reduce_cost,
    "all_gather": bruck_all_gather_cost,
    "broadcast": tree_broadcast_cost,
    "reduce": tree_reduce_cost,
    "gather": tree_gather_cost,
    "scatter": tree_scatter_cost,
    "barrier": dissemination_barrier_cost,
}

__all__ = [
    "COSTS",
    "Cost",
    "CostFunction",
    "TREE_COSTS",
    "bruck_all_gather",
    "bruck_all_gather_cost",
    "dissemination_barrier",
    "dissemination_barrier_cost",
    "flat_all_reduce",
    "flat_all_reduce_cost",
    "flat_gather",
    "flat_gather_cost",
    "flat_scatter",
    "flat_scatter_cost",
    "pairwise_all_to_all",
    "pairwise_all_to_all_cost",
    "recursive_doubling_all_reduce",
    "recursive_doubling_all_reduce_cost",
    "ring_all_gather",
    "ring_all_gather_cost",
    "ring_all_reduce",
    "ring_all_reduce_cost",
    "ring_broadcast",
    "ring_broadcast_cost",
    "ring_reduce",
    "ring_reduce_cost",
    "ring_reduce_scatter",
    "ring_reduce_scatter_cost",
    "ring_shift",
    "ring_shift_cost",
    "tree_all_reduce",
    "tree_all_reduce_cost",
    "tree_broadcast",
    "tree_broadcast_cost",
    "tree_gather",
    "tree_gather_cost",
    "tree_reduce",
    "tree_reduce_cost",
    "tree_scatter",
    "tree_scatter_cost",
]
