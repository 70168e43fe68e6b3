"""However an iteration with workers ends, it says what happened, and no process and no shared memory is left."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import data
from tests.leftovers import GUARD, alive, until

ROOT = str(Path(minidl.__file__).parents[1])
pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Fails:
    """Sample 5 does what `how` says."""

    def __init__(self, how=lambda: None):
        self.how = how

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == 5:
            self.how()
        return float(i)


def read_a_file_that_is_not_there():
    raise FileNotFoundError("image 5 is not there")


def test_an_error_in_a_worker_comes_with_its_traceback_after_the_batches_before_it():
    seen = []
    with pytest.raises(data.WorkerError) as caught:
        for x in data.DataLoader(Fails(read_a_file_that_is_not_there), 2, num_workers=2):
            seen.append(x.numpy().tolist())
    assert seen == [[0, 1], [2, 3]]
    assert str(caught.value).startswith("DataLoader worker 0 of 2 raised:\n\nTraceback")
    assert "in read_a_file_that_is_not_there" in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError) and caught.value.rank == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "DataLoader worker 1 of 3 was killed by SIGKILL"),
        (lambda: os._exit(4), "DataLoader worker 1 of 3 exited with code 4"),
        (lambda: sys.exit(4), "DataLoader worker 1 of 3 raised:\n\nTraceback(.|\n)*SystemExit: 4"),
    ],
    ids=["killed", "exits", "sys.exit"],
)
def test_a_worker_that_dies_is_named(how, message):
    with pytest.raises(data.WorkerError, match=message):
        list(data.DataLoader(Fails(how), 4, num_workers=3))


def test_workers_outlive_the_thread_that_began_them():
    batches = iter(data.DataLoader(Fails(), 2, num_workers=2))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, batches).result()
    assert [x.numpy()[0] for x in (first, *batches)] == [0, 2, 4, 6, 8, 10]


def test_a_killed_worker_is_noticed_though_a_child_of_its_own_lives_on(tmp_path):
    path = tmp_path / "the loader has raised"

    def die_before_a_child():
        if os.fork() == 0:
            while not path.exists():
                time.sleep(0.01)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(data.WorkerError, match="DataLoader worker 0 of 1 was killed by SIGKILL"):
        list(data.DataLoader(Fails(die_before_a_child), 4, num_workers=1))
    path.touch()


def test_a_data_set_that_cannot_be_sent_is_refused_before_a_process_starts(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    dataset = Fails()
    dataset.file = open(__file__, "rb")
    with dataset.file, pytest.raises(TypeError, match="cannot pickle"):
        list(data.DataLoader(dataset, num_workers=1))


def test_an_iterator_that_is_dropped_takes_its_workers_along(nothing_is_left):
    for _ in data.DataLoader(Fails(), num_workers=2):
        assert len(alive(nothing_is_left)) == 2
        break
    until(lambda: not alive(nothing_is_left))

    iterator = iter(data.DataLoader(Fails(), num_workers=2))
    kept = next(iterator)
    circle = [iterator]
    circle.append(circle)
    del iterator, circle
    gc.collect()
    assert not alive(nothing_is_left) and kept.numpy().tolist() == [0]


def test_an_error_in_the_loop_leaves_no_worker(nothing_is_left):
    with pytest.raises(ZeroDivisionError):
        for _ in data.DataLoader(Fails(), num_workers=2):
            raise ZeroDivisionError
    until(lambda: not alive(nothing_is_left))


def test_shared_memory_is_given_back():
    def mappings():
        return Path("/proc/self/maps").read_text().count("memfd:minidl")

    gc.collect()
    before, files = mappings(), len(os.listdir("/proc/self/fd"))
    loader = data.DataLoader(data.ArrayDataset(np.zeros((8, 100)), np.zeros(8)), 2, num_workers=2)
    kept = [x for x, _ in loader]
    assert mappings() == before + 1 and len(os.listdir("/proc/self/fd")) == files + 1  # a mapping has its own
    kept = kept[-1].numpy()[1:]
    assert mappings() == before + 1 and not kept.any()
    del kept
    assert mappings() == before and len(os.listdir("/proc/self/fd")) == files


SCRIPT = """
    import sys, time
    import numpy as np
    from minidl import data

    class Slow:
        def __len__(self):
            return 100
        def __getitem__(self, i):
            if i == 3:
                WAIT
            return float(i)

    if __name__ == "__main__":
        for x in data.DataLoader(Slow(), num_workers=2):
            if x.numpy()[0] == 1:
                print("ready", flush=True)
"""


@pytest.mark.parametrize("wait", ["time.sleep(1000)", "sum(range(10 ** 12))"], ids=["sleeping", "computing"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_no_worker_survives_the_loader(tmp_path, nothing_is_left, how, wait):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).replace("WAIT", wait))
    environment = os.environ | {"PYTHONPATH": ROOT}
    user = subprocess.Popen(
        [sys.executable, path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert user.stdout.readline() == "ready\n"
    assert len(alive(nothing_is_left)) == 3
    user.send_signal(how)
    _, errors = user.communicate(timeout=GUARD)
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1
    until(lambda: not alive(nothing_is_left))


def test_an_iterator_that_the_script_ends_with_leaves_nothing(tmp_path, nothing_is_left):
    path = tmp_path / "script.py"
    path.write_text("from minidl import data\nit = iter(data.DataLoader(data.digits()[0], num_workers=2)); next(it)\n")
    ended = subprocess.run(
        [sys.executable, path], env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True, text=True
    )
    assert ended.returncode == 0 and ended.stderr == ""
