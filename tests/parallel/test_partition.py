"""The best cut of a chain by brute force, and the bounds that buckets keep."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.layout import layout
from minidl.parallel.partition import buckets, partition

COSTS = st.lists(st.one_of(st.integers(0, 20), st.floats(0, 1e15)), min_size=1, max_size=9)


def costliest(costs, runs):
    return max(sum(costs[a:b]) for a, b in runs)


def is_a_cut(runs, first, end):
    return (
        runs[0][0] == first
        and runs[-1][1] == end
        and all(a < b for a, b in runs)
        and all(left[1] == right[0] for left, right in itertools.pairwise(runs))
    )


@given(costs=COSTS, stages=st.integers(1, 9))
def test_no_cut_has_a_cheaper_costliest_stage(costs, stages):
    if stages > len(costs):
        with pytest.raises(ValueError, match=f"pipeline={stages} needs at least {stages} blocks, the model has"):
            layout(Plan(pipeline=stages), costs, [0] * len(costs))
        return
    runs = partition(costs, stages)
    assert len(runs) == stages and is_a_cut(runs, 0, len(costs))
    best = min(
        costliest(costs, list(itertools.pairwise((0, *cuts, len(costs)))))
        for cuts in itertools.combinations(range(1, len(costs)), stages - 1)
    )
    assert costliest(costs, runs) <= best * (1 + 1e-9)


@given(
    sizes=st.lists(st.integers(0, 100), min_size=1, max_size=12),
    first=st.integers(0, 3),
    target=st.integers(1, 150),
)
def test_buckets_cut_the_stage_and_all_but_the_first_are_full(sizes, first, target):
    first = min(first, len(sizes) - 1)
    runs = buckets(sizes, (first, len(sizes)), target)
    assert is_a_cut(runs, first, len(sizes))
    for a, b in runs[1:]:
        assert sum(sizes[a:b]) >= target
        assert sum(sizes[a + 1 : b]) < target  # and no fuller than they must be
    if len(runs) > 1:
        assert sum(sizes[slice(*runs[0])]) > 0  # none without parameters


def test_equal_blocks_make_equal_stages():
    assert partition([1.0] * 8, 4) == ((0, 2), (2, 4), (4, 6), (6, 8))
    assert partition([0.1] * 96, 16) == tuple((i, i + 6) for i in range(0, 96, 6))


def test_a_costly_block_has_a_stage_of_its_own():
    assert partition([1, 1, 10, 1, 1], 3) == ((0, 2), (2, 3), (3, 5))
