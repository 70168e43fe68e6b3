"""Stages and buckets: the best cut by brute force, and the bounds that buckets keep."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.layout import (
    SHARE_ELEMENTS,
    Layout,
    buckets,
    flat_elements,
    layout,
    partition,
    parts,
    share_elements,
)

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


@pytest.mark.parametrize("data", [1, 2])
def test_every_stage_is_a_chunk_that_is_cut_into_buckets_however_many_replicas_there_are(data):
    cuts = layout(Plan(data=data, pipeline=2), [1.0] * 4, [2**20] * 4)
    assert cuts.chunks == ((0, 2), (2, 4)) and cuts.stages == ((0,), (1,))
    assert cuts.buckets == (((0, 1), (1, 2)), ((2, 3), (3, 4)))
    assert [cuts.last_bucket(chunk) for chunk in (0, 1)] == [1, 1]
    assert layout(Plan(data=data, bucket_mb=100), [1.0] * 4, [2**20] * 4).buckets == (((0, 4),),)


def test_a_stage_holds_chunks_that_are_as_far_apart_as_there_are_stages():
    plan = Plan(pipeline=2, chunks=3, schedule="interleaved", micro_batches=2)
    cuts = layout(plan, [1.0] * 12, [2**20] * 12)
    assert cuts.chunks == tuple((n, n + 2) for n in range(0, 12, 2)) and cuts.stages == ((0, 2, 4), (1, 3, 5))
    with pytest.raises(ValueError, match="pipeline=2 × chunks=3 needs at least 6 blocks, the model has 5"):
        layout(plan, [1.0] * 5, [0] * 5)


def test_a_stage_is_found_by_each_chunk_that_it_holds():
    blocks = tuple((n, n + 1) for n in range(4))
    cuts = Layout(blocks, tuple((block,) for block in blocks), stages=((0, 2), (1, 3)))
    assert [cuts.stage_of(chunk) for chunk in range(4)] == [0, 1, 0, 1]


@given(
    blocks=st.integers(1, 10), first_trained=st.integers(0, 10), pipeline=st.integers(1, 4), bucket=st.integers(1, 4)
)
def test_the_gradient_goes_back_as_far_as_the_bucket_of_the_first_trained_block(
    blocks, first_trained, pipeline, bucket
):
    pipeline = min(pipeline, blocks)
    cuts = layout(Plan(pipeline=pipeline, bucket_mb=bucket), [1.0] * blocks, [2**20] * blocks, first_trained)
    for chunk, (start, _) in enumerate(cuts.chunks):
        found = cuts.trained_buckets(chunk)
        assert list(found) == [
            b
            for b, (first, end) in enumerate(cuts.buckets[chunk])
            if any(k >= first_trained for k in range(first, end))
        ]
        assert cuts.wants_gradient(chunk) == any(k >= first_trained for k in range(start))


@given(sizes=st.lists(st.integers(0, 200), max_size=8), shares=st.integers(1, 6))
def test_the_shares_of_all_replicas_have_each_parameter_once_and_are_of_one_length(sizes, shares):
    length = share_elements(sum(sizes), shares)
    owners = [[] for _ in sizes]
    for share in range(shares):
        found = parts(sizes, share, shares)
        flat = [start + k for start, size, part in zip(starts(sizes), sizes, found, strict=True)
                for k in range(size)[part]]  # fmt: skip
        assert flat == list(
            range(share * length, min((share + 1) * length, sum(sizes)))
        )  # in a row, all it has room for
        for own, size, part in zip(owners, sizes, found, strict=True):
            assert 0 <= part.start <= part.stop <= size
            own += range(size)[part]
    assert owners == [list(range(size)) for size in sizes]
    assert flat_elements(sum(sizes), shares) == shares * length


def starts(sizes):
    return [0, *itertools.accumulate(sizes)][:-1]


def test_shares_are_equal_hold_everything_and_are_whole_cache_lines():
    for elements, shares in itertools.product((0, 1, 15, 16, 17, 1000, 4097), (1, 2, 3, 8)):
        each = share_elements(elements, shares)
        assert each % SHARE_ELEMENTS == 0 and each * shares >= elements
        assert each == 0 or (each - SHARE_ELEMENTS) * shares < elements


def test_a_stage_that_holds_neighbouring_chunks_is_refused():
    with pytest.raises(
        ValueError, match="a stage holds the chunks 0 and 1: neighbours are one chunk, or on two stages"
    ):
        Layout(((0, 1), (1, 2)), (((0, 1),), ((1, 2),)), ((0, 1),))
