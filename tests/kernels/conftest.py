"""What the tests of a GPU's kernels share."""

import zlib

import pytest

from minidl.kernels.cuda import emulator

ORDERS = ("forward", "reversed")


@pytest.fixture(params=[0, pytest.param(1, marks=pytest.mark.slow)], ids=["", "other order"])
def thread_order(request, monkeypatch):
    """The order in which the emulator's threads run: a test is run in one of the two, and in the other if slow."""
    by_name = zlib.crc32(request.node.nodeid.replace("other order", "").encode())
    monkeypatch.setattr(emulator, "order", ORDERS[(by_name + request.param) % 2])
