"""Equal shares of flat arrays."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel.shares import SHARE_ELEMENTS, flat_elements, parts, share_elements


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
