"""However a run ends that no worker ends: limits, hangs, callbacks, the launcher killed. Nothing of it is left."""

import errno
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
from minidl import data, models, nn, optim
from minidl.arena import Arena
from minidl.parallel import Plan, WorkerError, launch, train
from minidl.parallel.runtime import hang_alarm
from minidl.parallel.runtime.process import LEAST_ROW_BYTES, Status, tell_returned
from tests.leftovers import GUARD, alive, until

ROOT = str(Path(minidl.__file__).parents[1])
pytestmark = pytest.mark.usefixtures("nothing_is_left")


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
