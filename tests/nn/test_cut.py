"""Parts of an array are taken and joined without a loss, however it is split."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.nn.cut import Cut, join
from minidl.parallel.shares import parts as shares_of


@st.composite
def splits(draw):
    """The shape of an array, and how it is split: dimensions, each with the number of its slices and parts."""
    rank = draw(st.integers(1, 3))
    dims = draw(st.lists(st.integers(0, rank - 1), unique=True))
    split = {d: (draw(st.integers(1, 4)), draw(st.integers(1, 3))) for d in dims}
    shape = tuple(draw(st.integers(1, 3)) * int(np.prod(split.get(d, 1))) for d in range(rank))
    return shape, split


def cuts_of(shape, split):
    """One for each rank of a mesh that has an axis for each dimension that is split."""
    for indices in itertools.product(*(range(count) for count, _ in split.values())):
        cut = Cut(shape)
        for (dim, (count, parts)), index in zip(split.items(), indices, strict=True):
            cut = cut.split(dim, index, count, parts)
        yield cut


def taken(whole, cuts):
    return [("x", cut.take(whole).copy(), cut) for cut in cuts]


@given(splits(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_parts_that_are_taken_of_an_array_and_joined_are_the_array(case, shares, random):
    shape, split = case
    whole = np.arange(np.prod(shape), dtype=float).reshape(shape)
    cuts = [
        cut.flat(part.start, part.stop)
        for cut in cuts_of(shape, split)
        for share in range(shares)
        for part in shares_of([cut.size], share, shares)
    ]
    pieces = taken(whole, cuts)
    assert all(part.shape == cut.shape and part.size == cut.size for _, part, cut in pieces)
    pieces += [piece for piece in pieces if random.random() < 0.5]  # which several ranks hold
    random.shuffle(pieces)
    np.testing.assert_array_equal(join(pieces)["x"], whole)


@given(splits())
def test_an_array_in_any_layout_in_memory_can_be_cut(case):
    shape, split = case
    whole = np.arange(np.prod(shape), dtype=float).reshape(shape)
    for cut in cuts_of(shape, split):
        np.testing.assert_array_equal(cut.take(np.asfortranarray(whole)), cut.take(whole))


def test_with_several_parts_each_rank_has_its_slice_of_each():
    whole = np.arange(12)
    assert [list(cut.take(whole)) for cut in cuts_of((12,), {0: (2, 3)})] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


WHOLE = np.arange(24.0).reshape(4, 6)
ROWS = list(cuts_of((4, 6), {0: (2, 1)}))
INCOMPLETE = {
    "a rank is missing": (ROWS[:1], "of x have 12 elements, the whole 24"),
    "a share is missing": ([*ROWS[:1], ROWS[1].flat(0, 5)], "of x have 17 elements, the whole 24"),
    "shares overlap": ([*ROWS[:1], ROWS[1].flat(0, 8), ROWS[1].flat(6, 12)], "of x have 26 elements, the whole 24"),
    "a rank thinks that it has all": ([Cut((4, 6)), ROWS[1]], "of x have 36 elements, the whole 24"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_parts_that_are_not_the_whole_are_refused(case):
    cuts, message = INCOMPLETE[case]
    with pytest.raises(ValueError, match=message):
        join(taken(WHOLE, cuts))


def test_a_part_that_does_not_fit_its_place_is_refused():
    for cut in (ROWS[0], ROWS[0].flat(2, 7)):
        with pytest.raises(ValueError):
            cut.paste(np.zeros(cut.size - 2), WHOLE.copy())


def test_a_dimension_that_does_not_divide_or_is_split_already_is_refused():
    with pytest.raises(ValueError, match="dimension 1 of .* cannot be split into 4"):
        Cut((4, 6)).split(1, 0, 2, parts=2)
    with pytest.raises(ValueError, match="dimension 0 of .* cannot be split into 2"):
        ROWS[0].split(0, 0, 2)
