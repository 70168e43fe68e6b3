"""Any calls of a group in shared memory, of any dtype and length on 1 to 5 ranks, give what NumPy gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.parallel import launch
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.meta_group import MetaGroup
from tests.parallel.drawn_calls import calls, make

pytestmark = pytest.mark.usefixtures("warm_workers")

RANKS = st.integers(1, 5)


@pytest.mark.parametrize("ranks", (1, 2, 3, 4, 5))
def test_any_calls_one_after_the_other_or_at_once_give_what_numpy_gives(ranks):
    @settings(max_examples=5)
    @given(st.lists(calls(ranks), min_size=10, max_size=40))
    def holds(called):
        launch(make, ranks, (called,), timeout=60)

    holds()


@given(RANKS.flatmap(lambda size: st.tuples(calls(size), st.integers(0, size - 1))))
def test_on_meta_any_call_has_the_shape_of_its_result_and_is_recorded_with_the_bytes_of_the_larger_tensor(drawn):
    call, rank = drawn
    group, expected = MetaGroup(rank, len(call.lengths), ("tensor",)), call.expected(rank)
    x = list(call.brought())[rank]
    with meta.record() as profile:
        found = call.begin(group, lambda array: MetaArray(array.shape, array.dtype))
        found = found.wait() if call.async_op else found
    assert (found is None) == (expected is None)
    whole = max(x.nbytes, expected.nbytes if expected is not None else 0)
    if call.name == "gather":
        whole = sum(part.nbytes for part in call.brought())
    if expected is not None:
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    phases = [("start", 1), ("wait", 1)] if call.async_op else [("", 0)]
    noted = [CollectiveCall(call.name, ("tensor",), group.size, whole, *phase) for phase in phases]
    assert profile == (noted if group.size > 1 else [])


def test_on_meta_a_result_whose_shape_nobody_says_is_refused():
    group = MetaGroup(1, 2)
    for call in (group.scatter, lambda: group.recv(src=0)):
        with pytest.raises(ValueError, match="on meta needs x on every rank: its shape says that of the result"):
            call()
