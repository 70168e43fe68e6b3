"""Ctrl-C ends a training after the step under way, on all ranks after the same one; pressed twice it ends at once."""

import signal
import threading

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.arena import Arena
from minidl.parallel import Plan, WorkerError, launch, train
from minidl.parallel.runtime.process import Status
from minidl.parallel.runtime.stopping import EndAtOnce, Stopping, ask_to_stop

pytestmark = pytest.mark.usefixtures("warm_workers", "nothing_is_left")


def run(plan, **options):
    options = dict(optimizer=optim.Adam, loss=nn.CrossEntropyLoss(), batch_size=16, timeout=120) | options
    return train(lambda mesh: models.mlp((64, 32, 10), mesh=mesh), data.digits()[0], plan, **options)


def raising(error):
    """A callback that raises `error` after the third step and, as early stopping does, after each that still comes."""

    def callback(record):
        if record.step >= 2:
            raise error

    return callback


def pressing(times=1):
    """A callback that presses Ctrl-C after the third step."""

    def press(record):
        if record.step == 2:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return press


@pytest.mark.parametrize(
    ("plan", "callback", "raised"),
    [
        (Plan(), raising(KeyboardInterrupt()), KeyboardInterrupt),
        (Plan(data=2), raising(ZeroDivisionError()), ZeroDivisionError),
        (Plan(), raising(SystemExit()), SystemExit),
        (Plan(data=2), pressing(), KeyboardInterrupt),
        (Plan(pipeline=2), pressing(), KeyboardInterrupt),
        (Plan(tensor=2), pressing(), KeyboardInterrupt),
    ],
)
def test_a_stopped_training_has_all_there_is_after_a_whole_step(tmp_path, plan, callback, raised):
    told = []
    callbacks = [callback, lambda record: told.append(record.loss)]
    with pytest.raises(raised) as caught:
        run(plan, steps=1_000_000, callbacks=callbacks, save=tmp_path / "x", evaluate=data.digits()[1])
    assert type(caught.value) is raised
    stopped = caught.value.run
    done = len(stopped.losses)
    whole = run(plan, steps=done)
    assert 3 <= done < 1_000_000 and len(stopped.step_times) == done and stopped.evaluations == []
    assert told == stopped.losses == whole.losses and stopped.state_dict().keys() == whole.state_dict().keys()
    assert all(np.array_equal(x, whole.state_dict()[name]) for name, x in stopped.state_dict().items())
    assert {e.step for e in stopped.trace.events} == set(range(max(0, done - 200), done))
    assert minidl.load(tmp_path / "x")["step"] == stopped.saved_step == done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_pressed_twice_ends_at_once_with_the_losses_so_far(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        run(Plan(data=2), steps=1_000_000, callbacks=[pressing(2)], save=tmp_path / "x")
    assert len(caught.value.run.losses) >= 3 and caught.value.run.state_dict() == {}
    assert not (tmp_path / "x").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_after_a_function_has_asked_others_are_not_heeded_but_ctrl_c_is():
    def interrupt():
        raise KeyboardInterrupt

    arena = Arena(1, 1 << 16)
    Status(arena, 0).tell_step(4)
    with pytest.raises(EndAtOnce), Stopping(lambda: ask_to_stop(arena)) as stopping:
        for _ in range(3):
            stopping.heeded(interrupt)()
        stopping.heeded(signal.raise_signal)(signal.SIGINT)


@pytest.mark.parametrize("save_complete", [True, False])
def test_a_checkpoint_can_be_left_to_trainings_that_are_stopped(tmp_path, save_complete):
    run(Plan(), steps=3, save=tmp_path / "x", save_complete=save_complete)
    assert (tmp_path / "x").exists() == save_complete


def fail_after_a_report(group):
    group.begins(0)
    group.report("early")
    raise ArithmeticError("late")


def test_a_worker_that_fails_before_all_have_stopped_is_named_with_what_was_to_stop_them():
    def object_to(rank, message):
        raise ValueError(message)

    with pytest.raises(WorkerError, match="ArithmeticError: late") as caught:
        launch(fail_after_a_report, 1, on_report=object_to, stoppable=True)
    assert str(caught.value.__context__) == "early"


def count_alone(group):
    """Steps in which no rank waits for another: rank 1 is slower."""
    step = 0
    while group.begins(step):
        step += 1
        sum(range(1000 * group.rank))
        if step == 50:
            group.report(step)
    return step


def test_ranks_that_do_not_wait_for_one_another_stop_before_the_same_step():
    def press(rank, step):
        if rank == 0:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        launch(count_alone, 3, on_report=press, stoppable=True)
    assert len(set(caught.value.results)) == 1 and caught.value.results[0] >= 50


def test_before_a_step_has_begun_ctrl_c_ends_the_run_at_once():
    arena = Arena(2, 1 << 16)
    assert not ask_to_stop(arena)
    Status(arena, 1).tell_step(4)
    assert ask_to_stop(arena)
    with pytest.raises(KeyboardInterrupt), Stopping(lambda: False):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_and_other_threads_are_left_alone():
    found = []
    before = signal.signal(signal.SIGINT, lambda number, frame: found.append(number))
    try:
        with Stopping(lambda: ask_to_stop(Arena(1, 1 << 16))) as stopping:
            signal.raise_signal(signal.SIGINT)
        assert found == [signal.SIGINT] and stopping.reason is None
    finally:
        signal.signal(signal.SIGINT, before)
    losses = []
    thread = threading.Thread(target=lambda: losses.extend(run(Plan(), steps=2).losses))
    thread.start()
    thread.join()
    assert len(losses) == 2
