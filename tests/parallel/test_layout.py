"""Where chunks, buckets and stages are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.layout import Layout, layout


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


def test_a_stage_that_holds_neighbouring_chunks_is_refused():
    with pytest.raises(
        ValueError, match="a stage holds the chunks 0 and 1: neighbours are one chunk, or on two stages"
    ):
        Layout(((0, 1), (1, 2)), (((0, 1),), ((1, 2),)), ((0, 1),))
