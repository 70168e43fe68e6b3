"""What all tests share."""

import os
import time

import pytest
from hypothesis import settings

from tests.leftovers import alive, until

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
