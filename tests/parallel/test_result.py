"""A Run shows what it holds, in one line and whole."""

import math

from hypothesis import given
from hypothesis import strategies as st

from minidl.parallel import Plan, Run
from minidl.parallel.result import Evaluation
from minidl.trace import COMPUTE, Event, Trace
from minidl.units import duration, rate
from tests.parallel.plans import PLANS

STEPS = st.lists(st.tuples(st.floats(), st.floats(1e-9, 1e9)), max_size=5)
EVALUATIONS = st.lists(st.builds(Evaluation, st.integers(1, 10**6), st.floats(), st.floats(0, 1)), max_size=3)


def run(plan=None, steps=(), evaluations=(), events=(), **options):
    losses, times = [loss for loss, _ in steps], [seconds for _, seconds in steps]
    return Run(plan=plan or Plan(), program=None, batch_size=64, losses=losses, step_times=times, trace=Trace(events),
               evaluations=list(evaluations), **options)  # fmt: skip


@given(PLANS, STEPS, EVALUATIONS, st.integers(0, 10**6))
def test_a_run_shows_its_own_numbers_within_80_columns(plan, steps, evaluations, first_step):
    r = run(plan, steps, evaluations, first_step=first_step)
    text = " ".join(str(r).split())
    assert all(len(line) <= 80 for line in str(r).splitlines()) and "\n" not in repr(r)
    assert text.startswith(f"Run of {plan} workers {plan.workers:,} steps {len(steps)} of 64 samples")
    assert (f", after the first {first_step:,}" in text) == bool(first_step)
    if steps:
        course = f"{r.losses[0]:.4g}" + (f" → {r.losses[-1]:.4g}" if len(steps) > 1 else "")
        assert f" loss {course} " in text and f"loss {course}, {duration(r.step_seconds)} a step" in repr(r)
        assert f"step time, median {duration(r.step_seconds)}" in text
        assert f"throughput {rate(64 / r.step_seconds, 'samples')}" in text
    if evaluations:
        assert f"{evaluations[-1].step:,} test loss {evaluations[0].loss:.4g}" in text
    assert ("test accuracy" in text) == any(e.accuracy for e in evaluations)


def test_a_run_without_a_step_has_numbers_to_print():
    empty = run()
    assert math.isnan(empty.step_seconds) and math.isnan(empty.throughput)
    assert empty.trace.bubble_fraction == 0 and empty.state_dict() == {}
    assert repr(empty) == "<Run of one worker: 0 steps>"
    assert str(empty) == "Run of one worker\nworkers  1\nsteps    0 of 64 samples"


def test_one_worker_is_idle_and_several_have_a_bubble():
    for ranks, name in ((1, "idle"), (2, "bubble")):
        events = [Event(rank, COMPUTE, "F0", 0, 1 + rank) for rank in range(ranks)]
        shown = [line.split()[0] for line in str(run(Plan(data=ranks), [(1.0, 2.0)], events=events)).splitlines()]
        assert name in shown and len({"idle", "bubble"} & set(shown)) == 1


def test_a_checkpoint_and_why_there_is_none_are_shown():
    text = str(run(saved_step=40, save_error=OSError(28, "No space left on device")))
    assert "checkpoint  of step 40" in text and "not saved   [Errno 28] No space left on device" in text


def test_a_run_on_sequences_shows_its_tokens_per_second():
    r = run(steps=[(1.0, 2.0)], sequence=100)
    assert r.tokens_per_second == 64 * 100 / 2.0 and "throughput         32 samples/s, 3,200 tokens/s" in str(r)
    assert run(steps=[(1.0, 2.0)]).tokens_per_second is None
