"""However a run ends, it says what happened, no process is left, and nothing remains in shared memory."""

import os
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
from minidl.parallel import Plan, WorkerError, launch, train
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


def start(tmp_path, script):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ | {"PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_worker_that_never_lets_go_of_the_interpreter_is_killed(tmp_path, nothing_is_left, how):
    launcher = start(tmp_path, SPINNING)
    assert launcher.stdout.readline() == "ready\n"
    launcher.send_signal(how)
    launcher.communicate(timeout=GUARD)
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
