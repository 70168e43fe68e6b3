"""What all tests share."""

import contextlib
import fcntl
import gc
import json
import os
import signal
import sys
import time
from dataclasses import asdict

import cloudpickle
import pytest
from hypothesis import settings

import tests
from minidl import get_num_threads
from minidl.forkserver import ForkServer, serving
from simulator.calibration import Calibration
from simulator.measure import Effort, measure
from tests.leftovers import alive, children, until

# A slow machine is no error; examples are others in each run.
settings.register_profile("minidl", deadline=None, max_examples=40)
settings.load_profile("minidl")

# What tests define goes to workers by value: else each worker would import the test's module first, and all it needs.
cloudpickle.register_pickle_by_value(tests)

# Python's code too is compiled once, for all processes that tests start, as Numba's is.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The device cuda is the emulator, unless MINIDL_CUDA is set, to nothing for a GPU.
os.environ.setdefault("MINIDL_CUDA", "emulated")

# What a script begins in the background ignores Ctrl-C, and all that it starts does; the processes of tests shall not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# BLAS has one thread and large kernels are cut, as after the first that is: two pools would wait for each other.
get_num_threads()

CAN_FORK = hasattr(os, "pidfd_open")  # elsewhere, as on macOS, workers start as ever


def pytest_collection_finish():
    """What has been imported by now stays: the collector need not look at it again and again.

    PyTorch has one thread too: what an oracle computes is too little for more, which would spin for it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_is_left(monkeypatch, request):
    """Every process of the test carries a marker; afterwards none does, and nothing new is in /dev/shm.

    What is forked from the warm server has the environment of that in /proc: it is known as the server's child.
    """
    marker = f"MINIDL_TEST_{os.getpid()}_{time.monotonic_ns()}"
    monkeypatch.setenv("MINIDL_TEST_MARKER", marker)
    forks = CAN_FORK and {"warm_server", "warm_workers"}.intersection(request.fixturenames)
    server = request.getfixturevalue("warm_server") if forks else None
    before = set(os.listdir("/dev/shm"))
    yield marker
    until(lambda: not alive(marker))
    until(lambda: not server or not children(server._process.pid))
    new = set(os.listdir("/dev/shm")) - before
    others = (
        "sem.",
        "pym-",
        "mpich_shm_",
        "ucx_shm_",
    )  # semaphores of multiprocessing; what tests of MPI beside this one use
    assert not [name for name in new if not name.startswith(others)]


@pytest.fixture(scope="session")
def warm_server():
    server = ForkServer()
    yield server
    server.close()


@contextlib.contextmanager
def warm(request):
    if not CAN_FORK:
        yield
        return
    with serving(request.getfixturevalue("warm_server")):
        yield


@pytest.fixture(scope="module")
def warm_workers(request):
    """The workers of the module's tests are forked from a process that has imported what they need."""
    with warm(request):
        yield


@pytest.fixture
def cold_workers(warm_workers):
    """Those of this test of a module with warm workers start as they do for most users: as processes of their own."""
    with serving(None):
        yield


def calibrate_quickly(request):
    said = []
    with warm(request):
        return measure(said.append, Effort(contention=1, rounds=1, iterations=3, launches=1)), said


@pytest.fixture(scope="session")
def real_calibration(request, tmp_path_factory):
    """One calibration of this machine for all tests, no more thorough than they need, and what it said it was doing.

    Of processes that share the tests, the first that needs it measures, and leaves it to the others in a file.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return calibrate_quickly(request)
    path = tmp_path_factory.getbasetemp().parent / "calibration.json"  # in the folder of this run of pytest
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if text := file.read():
            table, said = json.loads(text)
            return Calibration(**table), said
        found, said = calibrate_quickly(request)
        file.write(json.dumps([asdict(found), said]))
    return found, said
