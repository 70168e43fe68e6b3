"""Standard outputs as they are found in the world: each takes what is printed, or not, in its own way."""

import io
import os
import sys

import pytest

FULL = pytest.param("full disk", marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full"))
BROKEN = ("closed pipe", FULL, "closed descriptor")  # none of these takes anything
CODES = {"closed pipe": 0, "full disk": 1, "closed descriptor": 0}  # of a command that went well but for that


def terminal(kind: str) -> io.TextIOWrapper | None:
    """An output of this kind, or one that knows only the characters of the encoding `kind`."""
    if kind == "closed descriptor":
        return None
    if kind == "full disk":
        return open("/dev/full", "w")
    if kind == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
        return open(writer, "w")
    return io.TextIOWrapper(io.BytesIO(), kind)


def printed_on(monkeypatch, kind: str, main, arguments) -> int:
    """The exit code of a command with such a standard output; fails if Python could not close that when it ends."""
    stream = terminal(kind)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        code = main(arguments)
    if stream is not None:
        stream.close()
    return code
