"""However a run ends, it says what happened, no process is left, and nothing remains in shared memory."""

import errno
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim, processes
from minidl.arena import Arena
from minidl.messages import HEADER, Messages
from minidl.parallel import Plan, WorkerError, launch, train
from minidl.parallel.runtime import hang_alarm
from minidl.parallel.runtime.process import LEAST_ROW_BYTES, Status, has_returned, tell_returned
from tests.leftovers import GUARD, alive, until

ROOT = str(Path(minidl.__file__).parents[1])
pytestmark = pytest.mark.usefixtures("nothing_is_left")


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


def test_an_argument_that_cannot_be_pickled_is_refused_before_a_process_starts(no_process):
    with pytest.raises(TypeError, match="pickle"):
        launch(print, 2, args=((i for i in range(3)),))


def leaves(group, how):
    group.barrier()
    if group.rank == 0:
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    group.all_reduce(np.zeros(10))


def test_a_worker_that_exits_is_reported_with_its_code():
    with pytest.raises(WorkerError, match=r"rank 0 of 3 exited with code 7; it was last seen in barrier") as caught:
        launch(leaves, 3, args=("exit",))
    assert caught.value.rank == 0


def test_a_worker_killed_while_others_wait_in_a_collective_is_reported():
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


def test_sys_exit_in_a_worker_is_an_error_too():
    with pytest.raises(WorkerError, match="SystemExit: 3") as caught:
        launch(lambda group: sys.exit(3), 2)
    assert isinstance(caught.value.__cause__, SystemExit)


# A rank that has returned while another waits for it


def sends_more_than_fits(group):
    for _ in range(100):
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


def test_a_worker_whose_end_cannot_be_learned_is_still_noticed():
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


def test_a_killed_worker_is_noticed_though_a_child_of_its_own_lives_on(tmp_path):
    path = tmp_path / "launch has raised"
    with pytest.raises(WorkerError, match="rank 0 of 2 was killed by SIGKILL"):
        launch(dies_before_its_child, 2, args=(path,))
    path.touch()


def dies_while_it_sends(group):
    launcher = next(x for x in gc.get_objects() if isinstance(x, Messages))
    logging.getLogger().warning("last words")
    for i in range(50):
        group.report(i)
    launcher._socket.sendall(HEADER.pack(b"result", 100_000) + b"x" * 2000)
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


# Limits


def files_now():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "RLIMIT_NOFILE",
            files_now,
            r"Too many open files; this process may have \d+ open files at once \(ulimit -n\)",
        ),
        ("RLIMIT_FSIZE", lambda: 1 << 20, r"cannot share 8 MiB .* may have 1 MiB in a file \(ulimit -f\)"),
    ],
)
def test_a_limit_that_is_in_the_way_is_named(name, value, message):
    number = getattr(resource, name)
    soft, hard = resource.getrlimit(number)
    limit = value()
    resource.setrlimit(number, (limit, hard))
    try:
        with pytest.raises(OSError, match=message):
            launch(print, 2)
    finally:
        resource.setrlimit(number, (soft, hard))


def test_no_more_processes_is_said_with_the_limit(monkeypatch):
    def refuse(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda number: (7, 7) if number == resource.RLIMIT_NPROC else (-1, -1))
    expected = r"cannot start a process for rank 0 of 2: .*; this process may have 7 processes and .* \(ulimit -u\)"
    with pytest.raises(OSError, match=expected):
        launch(print, 2)


def hangs(group):
    group.barrier()
    if group.rank == 0:
        group.recv(src=1)
    elif group.rank == 1:
        group.all_reduce(np.zeros(2))
    else:
        time.sleep(1000)


def test_a_hang_is_reported_after_the_timeout_with_what_each_rank_did_last():
    with pytest.raises(WorkerError) as caught:
        launch(hangs, 3, timeout=0.5)
    assert caught.value.rank is None
    text = "no worker moved for 0.5 s; last seen: rank 0 in recv, rank 1 in all_reduce, rank 2 in barrier"
    assert str(caught.value) == text


def test_a_hang_beside_a_rank_that_has_returned_says_which(nothing_is_left):
    with pytest.raises(WorkerError, match="last seen: rank 0 has returned, rank 1 before its first collective"):
        launch(lambda group: group.rank and time.sleep(1000), 2, timeout=0.5)


def test_time_in_which_the_run_was_stopped_counts_for_no_hang(monkeypatch):
    arena, clock = Arena(2, LEAST_ROW_BYTES), [0.0]
    monkeypatch.setattr(hang_alarm.time, "monotonic", lambda: clock[0])
    alarm = hang_alarm.HangAlarm(arena, timeout=1.0)
    for rank in range(2):
        Status(arena, rank).tell_start()
    alarm.look()
    clock[0] += 1000
    alarm.look()  # as after Ctrl-Z and `fg`
    tell_returned(arena, 1)
    with pytest.raises(WorkerError, match="rank 0 before its first collective, rank 1 has returned"):
        for _ in range(4):
            clock[0] += alarm.look_seconds
            alarm.look()
    os.close(arena.fd)


class HangsInBackward(nn.Module):
    """Hands its input on; going back, it never comes to an end."""

    def forward(self, x):
        return HangingOp()(x)


class HangingOp(minidl.Op):
    def forward(self, x):
        return self.kernels.copy(x)

    def backward(self, grad):
        if isinstance(grad, np.ndarray):
            time.sleep(1000)
        return grad


def digits_run(build, plan, **options):
    arguments = dict(optimizer=lambda p: optim.SGD(p, lr=0.1), loss=nn.CrossEntropyLoss(), batch_size=32, steps=3)
    return train(build, data.digits()[0], plan, **(arguments | options))


def test_a_hanging_training_step_names_the_instructions():
    def build(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 10), HangsInBackward())

    with pytest.raises(WorkerError, match=r"rank 0 in recv grad0 \(recv\), rank 1 in B0$"):
        digits_run(build, Plan(pipeline=2), timeout=1.0)


def test_a_callback_that_raises_ends_the_run_with_its_own_exception():
    def stop(record):
        raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        digits_run(models.builder("mlp-digits"), Plan(data=2), steps=100_000, callbacks=[stop])


def test_an_error_in_a_report_handler_ends_the_run():
    def handler(rank, message):
        raise RuntimeError(f"rank {rank} said {message}")

    with pytest.raises(RuntimeError, match="rank 1 said hello"):
        launch(dies_reporting, 2, on_report=handler)


def dies_reporting(group):
    if group.rank == 1:
        group.report("hello")
    group.recv(src=1 - group.rank)


SCRIPT = """
    import os, sys, time
    import numpy as np
    from minidl.parallel import launch

    def work(group):
        group.barrier()
        if group.rank == 0:
            group.report(os.getpid())
        if group.rank == 2:
            time.sleep(1000)                        # not in a collective: nothing polls here
        group.all_reduce(np.zeros(3))

    def ready(rank, message):
        print("ready", flush=True)

    if __name__ == "__main__":
        launch(work, 3, on_report=ready)
"""


def start(tmp_path, script, own_group=False):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ | {"PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=own_group,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_no_worker_survives_its_launcher(tmp_path, nothing_is_left, how):
    launcher = start(tmp_path, SCRIPT)
    assert launcher.stdout.readline() == "ready\n"
    assert len(alive(nothing_is_left)) == 4
    launcher.send_signal(how)
    _, errors = launcher.communicate(timeout=GUARD)
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt")
        assert "Aborted" not in errors and errors.count("Traceback") == 1  # the workers say nothing
    until(lambda: not alive(nothing_is_left))


SPINNING = SCRIPT.replace("time.sleep(1000)", "sum(range(10 ** 12))")


FROM_A_THREAD = SPINNING.replace(
    "launch(work, 3", "import threading; threading.Thread(target=launch, args=(work, 3)"
).replace("on_report=ready)", "kwargs={'on_report': ready}).start()")


@pytest.mark.parametrize(
    ("script", "how"),
    [(SPINNING, signal.SIGINT), (SPINNING, signal.SIGKILL), (FROM_A_THREAD, signal.SIGKILL)],
    ids=["SIGINT", "SIGKILL", "SIGKILL, launched in a thread"],
)
def test_a_worker_that_never_lets_go_of_the_interpreter_is_killed(tmp_path, nothing_is_left, script, how):
    launcher = start(tmp_path, script)
    assert launcher.stdout.readline() == "ready\n"
    launcher.send_signal(how)
    launcher.communicate(timeout=GUARD)
    until(lambda: not alive(nothing_is_left))


def state(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_job_control_stops_and_resumes_all_and_ctrl_c_ends_all(tmp_path, nothing_is_left):
    launcher = start(tmp_path, SCRIPT, own_group=True)
    assert launcher.stdout.readline() == "ready\n"
    everyone = alive(nothing_is_left)
    assert len(everyone) == 4
    os.killpg(launcher.pid, signal.SIGSTOP)  # as SIGTSTP, which no shell is here to send
    until(lambda: all(state(process) == "T" for process in everyone))
    os.killpg(launcher.pid, signal.SIGCONT)
    until(lambda: all(state(process) != "T" for process in everyone))
    os.killpg(launcher.pid, signal.SIGINT)
    _, errors = launcher.communicate(timeout=GUARD)
    assert errors.strip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1
    until(lambda: not alive(nothing_is_left))


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


WRONG_LAUNCHES = [
    (lambda: launch(print, 0), ValueError, "workers=0 is not a whole number of at least 1"),
    (lambda: launch(print, 2.0), ValueError, "workers=2.0 is not a whole number"),
    (lambda: launch("print", 2), TypeError, "launch needs a function to run in the workers, not a str"),
    (lambda: launch(print, 2, timeout=0), ValueError, "timeout=0 is not a positive number"),
    (lambda: launch(print, 2, threads=0), ValueError, "threads=0 is not a whole number of at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG_LAUNCHES, ids=[w[2][:30] for w in WRONG_LAUNCHES])
def test_launch_refuses_bad_arguments_before_a_process_starts(no_process, call, error, message):
    with pytest.raises(error, match=message):
        call()


def mlp(mesh):
    return models.mlp((64, 128, 10), mesh=mesh)


NO_DATA = data.ArrayDataset(np.zeros((0, 64)), np.zeros(0, int))


def tied(mesh):
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


WRONG_RUNS = [
    (mlp, Plan(data=3), {}, ValueError, "batch_size 32 is not divisible by data=3 × micro_batches=1 (= 3)"),
    (mlp, Plan(), {"batch_size": 0}, ValueError, "batch_size=0 is not a whole number of at least 1"),
    (mlp, Plan(), {"batch_size": 2.5}, ValueError, "batch_size=2.5 is not a whole number of at least 1"),
    (mlp, Plan(pipeline=5), {}, ValueError, "pipeline=5 needs at least 5 blocks, the model has 4"),
    (mlp, Plan(tensor=3), {}, ValueError, "out_features=128 is not divisible by tensor=3"),
    (lambda mesh: [nn.Linear(2, 2)], Plan(), {}, TypeError, "the builder returned a list, not a Module"),
    (lambda mesh: None, Plan(), {}, TypeError, "the builder returned a NoneType, not a Module"),
    (mlp, Plan(), {"device": "tpu"}, ValueError, "unknown device 'tpu'"),
    (mlp, Plan(), {"device": "meta"}, ValueError, "device 'meta' computes nothing"),
    (mlp, Plan(), {"steps": 0}, ValueError, "steps=0 is not a whole number of at least 1"),
    (mlp, Plan(), {"clip_norm": 0.0}, ValueError, "clip_norm=0.0 is not a positive number"),
    (mlp, Plan(), {"lr_schedule": 0.1}, TypeError, "lr_schedule must be a function of the step, not a float"),
    (mlp, Plan(), {"dtype": "float16"}, ValueError, "dtype float16 is not supported"),
    (mlp, Plan(), {"evaluate_every": 0}, ValueError, "evaluate_every=0 is not a whole number of at least 1"),
    (
        mlp,
        Plan(),
        {"evaluate": data.ArrayDataset(np.zeros((0, 64)), np.zeros(0, int))},
        ValueError,
        "to evaluate is empty",
    ),
    (mlp, "data=2", {}, TypeError, "plan must be a Plan, not a str"),
    (tied, Plan(data=2), {}, ValueError, "blocks 1 and 3 share the parameter weight: only one worker can train that"),
]


@pytest.mark.parametrize(
    ("build", "plan", "options", "error", "message"), WRONG_RUNS, ids=[w[4][:40] for w in WRONG_RUNS]
)
def test_train_refuses_what_does_not_fit_before_a_process_starts(no_process, build, plan, options, error, message):
    with pytest.raises(error) as caught:
        digits_run(build, plan, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "zigzag"}, "unknown schedule 'zigzag': choose one of naive, gpipe, 1f1b"),
        ({"data": 0}, "data=0 is not a whole number of at least 1"),
        ({"pipeline": 1.5}, "pipeline=1.5 is not a whole number of at least 1"),
        ({"tensor": True}, "tensor=True is not a whole number of at least 1"),
        ({"micro_batches": -1}, "micro_batches=-1 is not a whole number of at least 1"),
        ({"bucket_mb": 0}, "bucket_mb=0 is not a positive number"),
        ({"sharding": "everything"}, "unknown sharding 'everything': choose one of none, optimizer"),
    ],
)
def test_a_plan_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError) as caught:
        Plan(**options)
    assert message in str(caught.value)
