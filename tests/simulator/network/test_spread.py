"""network/spread.py: where a group's ranks lie, counted by strides and counted one by one."""

from collections import Counter
from math import inf, prod

from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel.ranks import Ranks
from simulator.network.spread import Part, spread


def test_a_data_group_of_a_mesh_is_counted_by_its_strides():
    sizes = (8, 64, inf)
    assert spread(Ranks(3, [(4, 32)]), sizes) == (
        Part(32, 2, 1, ((4, 2),)), Part(16, 8, 2, ((1, 8),)), Part(2, 2, 16, ((1, 2),)),
    )  # fmt: skip
    assert spread(Ranks(0, [(1, 8)]), sizes)[1:] == (Part(1, 1, 8, ()), Part(1, 1, 8, ()))
    assert spread(Ranks(5, [(800, 100)]), sizes)[1] == Part(100, 1, 1, None)  # pods hold unequally many


def test_a_group_that_nodes_hold_unequally_is_counted_rank_by_rank():
    assert spread(Ranks(0, [(3, 5)]), (8, inf)) == (Part(5, 3, 1, None), Part(2, 2, 2, None))
    assert spread(Ranks(0, listed=(0, 1, 9)), (8, inf)) == (Part(3, 2, 1, None), Part(2, 2, 1, None))


DIMS = st.lists(st.tuples(st.integers(1, 3), st.integers(2, 4)), max_size=3)


@given(st.integers(0, 5), DIMS, st.sampled_from([(4, 16), (8, 24), (6, inf), (3, 12, 96)]))
def test_strides_count_what_ranks_do(start, gaps, sizes):
    dims, stride = [], 1
    for gap, count in gaps:
        stride *= gap
        dims.append((stride, count))
        stride *= count
    ranks, below = Ranks(start, dims[::-1]), 1
    for part, size in zip(spread(ranks, sizes), sizes, strict=False):
        held = Counter(rank // below for rank in ranks)
        together = Counter(0 if size == inf else unit // (size // below) for unit in held)
        assert (part.members, part.together) == (len(held), max(together.values()))
        assert part.fewest == min(held.values())
        assert part.dims is None or prod(count for _, count in part.dims) == part.together
        below = size
