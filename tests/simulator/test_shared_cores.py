"""shared_cores.py: processors shared among jobs, held to closed forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import Clock
from simulator.shared_cores import SharedCores


def ends(jobs, cores=1):
    """When each job (start, core, seconds, contention) is done."""
    clock = Clock()
    shared = SharedCores(clock, cores)
    found = {}
    for i, (start, core, seconds, contention) in enumerate(jobs):

        def begin(i=i, core=core, seconds=seconds, contention=contention):
            shared.work(core, seconds, contention, lambda: found.setdefault(i, clock.now))

        clock.after(start, begin)
    clock.run()
    assert len(found) == len(jobs) and not shared.jobs
    return [found[i] for i in range(len(jobs))]


def test_two_equal_jobs_on_one_core_take_twice_as_long():
    assert ends([(0, 0, 3.0, 1.0)]) == [3]
    assert ends([(0, 0, 3.0, 1.0)] * 2) == [6, 6]
    assert ends([(0, core, 3.0, 1.0) for core in (0, 1)], cores=2) == [3, 3]


def test_a_short_job_ends_after_twice_its_length_and_then_the_long_one_is_alone():
    assert ends([(0, 0, 1.0, 1.0), (0, 0, 3.0, 1.0)]) == [2, 4]
    # A job that comes later: 1 s alone, then 2 s for 1 s of each, then 1 s alone.
    assert ends([(0, 0, 3.0, 1.0), (1, 0, 1.0, 1.0)]) == [4, 3]


def test_contention_slows_a_job_in_proportion_to_the_other_cores_that_are_busy():
    assert ends([(0, 0, 2.0, 1.5)], cores=2) == [2]  # alone: at full speed
    assert ends([(0, core, 2.0, 1.5) for core in (0, 1)], cores=2) == pytest.approx([3, 3])
    # One of three other cores busy: a third of the slow-down.
    assert ends([(0, core, 2.0, 1.6) for core in (0, 1)], cores=4) == pytest.approx([2.4, 2.4])
    # 3 s at 2/3 speed are 2 s of work: the other job, of 1 s and contention 1, is done after 1 s.
    first, second = ends([(0, 0, 2.0, 2.0), (0, 1, 1.0, 1.0)], cores=2)
    assert (first, second) == pytest.approx((2.5, 1.0))


def test_work_of_no_length_is_done_at_once():
    assert ends([(0, 0, 0.0, 1.0), (0, 0, 1.0, 1.0), (2, 1, 0.0, 1.0)], cores=2) == [0, 1, 2]


JOBS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 2), st.floats(0, 5), st.just(1.0)), min_size=1, max_size=8)


@given(JOBS)
def test_a_core_is_never_idle_while_it_has_work_and_does_no_more_than_its_work(jobs):
    """The last end on each core is that of a queue that is served in any order: work is conserved."""
    found = ends(jobs, cores=3)
    for core in range(3):
        free = 0.0
        mine = [(start, seconds) for start, at, seconds, _ in jobs if at == core]
        for start, seconds in sorted(mine):
            free = max(free, start) + seconds
        last = max((end for end, job in zip(found, jobs, strict=True) if job[1] == core), default=0.0)
        assert last == pytest.approx(free, abs=1e-9)
    for end, (start, _, seconds, _) in zip(found, jobs, strict=True):
        assert end >= start + seconds - 1e-9


@given(st.integers(1, 6), st.floats(1e3, 1e9), st.floats(1e-9, 1.0))
def test_shared_cores_come_to_an_end_however_late_it_is(count, late, seconds):
    """Where the clock's own precision is coarser than what is left of a job, time would stand still."""
    found = ends([(late + i * seconds / 3, 0, seconds * (i + 1) / 7, 1.3) for i in range(count)], cores=2)
    assert max(found) == pytest.approx(late + seconds, abs=20 * seconds + late * 1e-12)
