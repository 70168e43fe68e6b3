"""Kernels that are cut over threads give what they give whole."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minidl.kernels.cpu.fast import threads


@pytest.fixture
def three_threads():
    before = threads.get_num_threads()
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize(("rows", "least"), [(0, 1), (1, 1), (2, 1), (3, 1), (10, 1), (10, 4), (10, 20)])
def test_slices_cover_the_rows_once_and_are_worth_their_thread(three_threads, rows, least):
    seen = []
    threads.split(rows, seen.append, least)
    assert sorted(i for part in seen for i in range(part.start, part.stop)) == list(range(rows))
    assert len(seen) == max(1, min(3, rows // least))


def test_slices_run_at_the_same_time(three_threads):
    meeting = threading.Barrier(3, timeout=60)
    threads.split(3, lambda part: meeting.wait())


def test_a_kernel_inside_another_runs_whole(three_threads):
    inner = []
    threads.split(3, lambda part: threads.split(5, inner.append))
    assert inner == [slice(0, 5)] * 3


def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_go_on(three_threads):
    def fail(part):
        if part.start:
            raise KeyError(part.start)

    for _ in range(2):
        with pytest.raises(KeyError):
            threads.split(3, fail)


def test_after_ctrl_c_in_the_middle_no_thread_of_before_is_used(three_threads, monkeypatch):
    let_go, left = threading.Event(), []

    def interrupted(thread):
        left.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads._Thread, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            threads.split(3, lambda part: part.start == 0 or let_go.wait(60))
    seen = []
    threads.split(3, seen.append)
    let_go.set()
    assert sorted(part.start for part in seen) == [0, 1, 2] and left[0] not in threads._pool


def test_blas_has_one_thread_where_we_have_several(three_threads):
    assert all(library["num_threads"] == 1 for library in threadpool_info() if library["user_api"] == "blas")
    with pytest.raises(ValueError, match="0 threads"):
        threads.set_num_threads(0)


def test_a_sum_over_slices_adds_them_in_their_order(three_threads):
    parts = np.array([1e16, 1.0, -1e16])  # the 1 is lost where it comes second
    total = threads.split_sum(3, lambda part: parts[part].copy())
    np.testing.assert_array_equal(total, (parts[:1] + parts[1:2]) + parts[2:])
    np.testing.assert_array_equal(threads.split_sum(1, lambda part: parts[part].copy()), parts[:1])
