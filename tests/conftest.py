"""What all tests share."""

import os
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest
from hypothesis import settings

from minidl import processes
from tests.leftovers import alive, until
from tests.warm import Server

settings.register_profile("minidl", deadline=None)  # a slow machine is no error
settings.load_profile("minidl")


@pytest.fixture
def nothing_is_left(monkeypatch):
    """Every process of the test carries a marker; afterwards none does, and /dev/shm is as it was."""
    marker = f"MINIDL_TEST_{os.getpid()}_{time.monotonic_ns()}"
    monkeypatch.setenv("MINIDL_TEST_MARKER", marker)
    before = set(os.listdir("/dev/shm"))
    yield marker
    until(lambda: not alive(marker))
    assert {name for name in os.listdir("/dev/shm") if "minidl" in name or name not in before} <= before | {
        name for name in os.listdir("/dev/shm") if name.startswith(("sem.", "pym-"))
    }


@pytest.fixture(scope="session", autouse=True)
def bytecode_is_kept():
    """A process that a test starts compiles no module that another has compiled, where they may not write beside it."""
    if not sys.dont_write_bytecode:
        yield
        return
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", folder)
        yield


@pytest.fixture(scope="session")
def warm_server(bytecode_is_kept):
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def warm_workers(request):
    """The workers of the module's tests are forked from a process that has imported what they need (tests/warm.py)."""
    if not hasattr(os, "pidfd_open"):
        yield
        return
    popen = request.getfixturevalue("warm_server").popen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))
        yield
