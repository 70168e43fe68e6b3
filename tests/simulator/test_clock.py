"""clock.py: the order of events."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import Clock


@given(st.lists(st.integers(0, 5)))
def test_actions_run_by_time_and_ties_in_the_order_they_were_asked_for(times):
    clock, ran = Clock(), []
    for i, t in enumerate(times):
        clock.after(t, lambda i=i: ran.append((clock.now, i)))
    clock.run()
    assert ran == sorted((float(t), i) for i, t in enumerate(times))


def test_an_action_may_ask_for_further_ones():
    clock, ran = Clock(), []

    def tick():
        ran.append(clock.now)
        if len(ran) < 4:
            clock.after(2, tick)

    clock.after(1, tick)
    clock.run()
    assert ran == [1, 3, 5, 7]
