"""However a worker ends, the launcher says which, how and why; no process is left, and nothing in shared memory."""

import gc
import logging
import os
import signal
import sys
import time

import numpy as np
import pytest

from minidl import messages, processes
from minidl.parallel import WorkerError, launch
from minidl.parallel.meetings import CHANNEL_MESSAGES
from minidl.parallel.runtime.process import has_returned

pytestmark = pytest.mark.usefixtures("warm_workers", "nothing_is_left")


class OddError(Exception):
    """Cannot be made again from its arguments, as pickle would."""

    def __init__(self, first, second):
        super().__init__(first + second)


def raises_while_others_wait(group, error):
    if group.rank == 1:
        raise error
    group.all_reduce(np.zeros(3))


@pytest.mark.parametrize("workers", [2, 4])
def test_a_worker_that_raises_gives_its_traceback_and_its_exception(workers):
    with pytest.raises(WorkerError) as caught:
        launch(raises_while_others_wait, workers, args=(KeyError("broken"),))
    assert caught.value.rank == 1
    assert str(caught.value).startswith(f"rank 1 of {workers} raised:")
    assert "in raises_while_others_wait" in str(caught.value) and "KeyError: 'broken'" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def raise_odd_error(group):
    raise OddError("half ", "and half")


def raise_what_cannot_be_pickled(group):
    raise ValueError("holds a generator", (i for i in range(3)))


def test_an_exception_that_cannot_be_pickled_still_gives_its_traceback():
    for work, text in ((raise_odd_error, "half and half"), (raise_what_cannot_be_pickled, "holds a generator")):
        with pytest.raises(WorkerError, match=text) as caught:
            launch(work, 1)
        assert caught.value.__cause__ is None


def test_a_result_that_cannot_be_pickled_is_named():
    with pytest.raises(WorkerError, match="the result, a generator, cannot be sent to the launcher"):
        launch(lambda group: (i for i in range(3)), 2)


def leaves(group, how):
    group.barrier()
    if group.rank == 0:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    group.all_reduce(np.zeros(10))


def test_a_worker_that_exits_is_reported_with_its_code(cold_workers):
    with pytest.raises(WorkerError, match=r"rank 0 of 3 exited with code 7; it was last seen in barrier") as caught:
        launch(leaves, 3, args=("exit",))
    assert caught.value.rank == 0


def test_a_worker_killed_while_others_wait_in_a_collective_is_reported(cold_workers):
    with pytest.raises(WorkerError, match=r"rank 0 of 3 was killed by SIGKILL") as caught:
        launch(leaves, 3, args=("kill",))
    assert caught.value.rank == 0


def dies_in_a_collective(group):
    x = group.empty((1 << 20,))
    group.all_reduce(x)
    if group.rank == 1:
        group.report(os.getpid())
    while True:
        group.all_reduce(x)


def test_a_worker_killed_in_the_middle_of_collectives_ends_the_run():
    with pytest.raises(WorkerError, match="rank 1 of 2 was killed by SIGKILL; it was last seen in all_reduce"):
        launch(dies_in_a_collective, 2, on_report=lambda rank, pid: os.kill(pid, signal.SIGKILL))


def raises_while_another_cannot_print(group):
    if group.rank == 0:
        sys.stdout = open("/dev/full", "w")
        print("lost")
    group.barrier()
    if group.rank == 1:
        raise KeyError("broken")
    group.barrier()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_worker_that_is_aborted_behind_a_full_disk_says_nothing(capfd):
    with pytest.raises(WorkerError, match="rank 1 of 2 raised"):
        launch(raises_while_another_cannot_print, 2)
    assert capfd.readouterr().err == ""


def test_sys_exit_in_a_worker_is_an_error_too():
    with pytest.raises(WorkerError, match="SystemExit: 3") as caught:
        launch(lambda group: sys.exit(3), 2)
    assert isinstance(caught.value.__cause__, SystemExit)


# A rank that has returned while another waits for it


def sends_more_than_fits(group):
    for _ in range(CHANNEL_MESSAGES + 1):
        group.send(np.zeros(1), 0)


def reduces_without_waiting(group):
    if group.rank == 0:
        group.all_reduce(np.zeros(3), async_op=True)
    else:
        while not has_returned(group.arena, 0):  # earlier it would find all it needs, and nothing would be wrong
            group.pause()
        group.all_reduce(np.zeros(3))


EARLY = {
    "barrier": lambda group: group.rank and group.barrier(),
    "all_reduce": lambda group: group.rank and group.all_reduce(np.zeros(3), async_op=True).wait(),
    "all_reduce, its handle dropped": reduces_without_waiting,
    "recv": lambda group: group.rank and group.recv(src=0),
    "send": lambda group: group.rank and sends_more_than_fits(group),
}


@pytest.mark.parametrize("call", EARLY)
def test_a_rank_that_returns_while_another_waits_for_it_is_named(call):
    waits = f"rank 1 of the group 'world' waits in {call.split(',')[0]} for rank 0, which has returned"
    with pytest.raises(WorkerError, match=waits) as caught:
        launch(EARLY[call], 2)
    assert caught.value.rank == 1


def returns_from_a_smaller_group(group):
    pairs = group.split(group.rank // 2)
    if group.rank != 2:
        pairs.barrier()


def test_a_rank_that_returns_is_named_by_its_place_in_the_group_that_waits():
    with pytest.raises(
        WorkerError, match="rank 3 of 4 raised(.|\n)*rank 1 of the group 'color 1' waits in barrier for"
    ):
        launch(returns_from_a_smaller_group, 4)


def owes_nothing(group):
    """Rank 0 returns first, and what the others still take from it is there."""
    halves = group.split(group.rank % 2)
    if group.rank == 0:
        for i in range(20):
            group.send(np.full(1000, i), 1)
        group.barrier(async_op=True)
        halves.all_reduce(np.zeros(100_000))
        return 0
    group.barrier()
    if group.rank == 1:
        halves.all_reduce(np.zeros(3))
        received = [group.recv(src=0).numpy()[0] for _ in range(20)]
        late = [halves.recv(src=1, async_op=True)]
        return [*received, late[0].wait().numpy()[0]]
    if group.rank == 3:
        halves.all_reduce(np.zeros(3))
        halves.send(np.full(1, 20), 0)
    else:
        halves.all_reduce(np.zeros(100_000))


def test_a_rank_that_returns_after_all_that_it_owes_is_missed_by_nobody():
    assert launch(owes_nothing, 4)[1] == list(range(21))


# However a worker ends


def ends_by(group, number):
    if group.rank == 1:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    group.barrier()


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGRTMIN + 6, r"SIGRTMIN\+6"), (signal.SIGXCPU, "SIGXCPU")],
)
def test_a_worker_that_a_signal_ends_is_named_with_the_signal(number, name):
    with pytest.raises(WorkerError, match=f"rank 1 of 2 was killed by {name}"):
        launch(ends_by, 2, args=(number,))
    assert processes.signal_name(33) == "signal 33"


def test_a_worker_whose_end_cannot_be_learned_is_still_noticed(cold_workers):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert launch(lambda group: group.rank, 2) == [0, 1]
        with pytest.raises(WorkerError, match=r"rank 0 of 2 ended, it is not known how: .* \(SIGCHLD\)"):
            launch(leaves, 2, args=("kill",))
    finally:
        signal.signal(signal.SIGCHLD, before)


def dies_before_its_child(group, path):
    if group.rank == 0:
        if os.fork() == 0:
            while not path.exists():
                time.sleep(0.01)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()


def test_a_killed_worker_is_noticed_though_a_child_of_its_own_lives_on(cold_workers, tmp_path):
    path = tmp_path / "launch has raised"
    with pytest.raises(WorkerError, match="rank 0 of 2 was killed by SIGKILL"):
        launch(dies_before_its_child, 2, args=(path,))
    path.touch()


def dies_while_it_sends(group):
    launcher = next(x for x in gc.get_objects() if isinstance(x, messages.Messages))
    logging.getLogger().warning("last words")
    for i in range(50):
        group.report(i)
    launcher._socket.sendall(messages.HEADER.pack(b"result", 100_000) + b"x" * 2000)
    os.kill(os.getpid(), signal.SIGKILL)


def test_all_that_a_worker_sent_before_it_died_arrives_and_half_a_message_does_no_harm(caplog):
    seen = []
    expected = "rank 0 of 1 was killed by SIGKILL when 2,000 of 100,000 bytes of its result had come"
    with pytest.raises(WorkerError, match=expected):
        launch(dies_while_it_sends, 1, on_report=lambda rank, message: seen.append(message))
    assert seen == list(range(50)) and "last words" in caplog.text


def test_a_worker_that_was_killed_while_memory_ran_out_says_so(monkeypatch):
    kills = iter(range(100))
    monkeypatch.setattr(processes, "_oom_kills", lambda: next(kills))
    with pytest.raises(WorkerError, match=r"was killed by SIGKILL \(meanwhile the system ran out of memory"):
        launch(leaves, 2, args=("kill",))


class Poisoned:
    """Can be sent, but not made again."""

    def __reduce__(self):
        return int, ("no number",)


def sends_what_cannot_be_made_again(group, kind):
    if kind == "report":
        group.report(Poisoned())
    if kind == "log record":
        logging.getLogger().warning("poisoned", extra={"part": Poisoned()})
    return Poisoned() if kind == "result" else "done"


@pytest.mark.parametrize("kind", ["report", "result"])
def test_what_cannot_be_made_again_in_the_launcher_is_named(kind):
    expected = rf"the {kind} of rank 0 of 1 \(\d+ bytes\) cannot be made again in this process: ValueError: invalid"
    with pytest.raises(WorkerError, match=expected):
        launch(sends_what_cannot_be_made_again, 1, args=(kind,), on_report=print)


def test_a_log_record_that_cannot_be_made_again_ends_nothing():
    with pytest.warns(UserWarning, match="a log record of rank 0 of 1 cannot be made again here: ValueError"):
        assert launch(sends_what_cannot_be_made_again, 1, args=("log record",)) == ["done"]


def test_a_report_that_cannot_be_sent_is_named_where_it_was_made():
    with pytest.raises(WorkerError, match="rank 0 of 1 raised(.|\n)*the report, a generator, cannot be sent"):
        launch(lambda group: group.report(i for i in range(3)), 1)
