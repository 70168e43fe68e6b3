"""Standard outputs as they are found in the world: each takes what is printed, or not, in its own way."""

import io
import os
import re
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


class Screen(io.StringIO):
    """A terminal that remembers all that was written to it."""

    def isatty(self) -> bool:
        return True


def left_on(written: str) -> tuple[list[str], bool]:
    """What stands on a terminal on which this was written, line by line; whether its cursor is seen, and below that."""
    lines, row, column, visible = [""], 0, 0, True
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
        elif part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part in ("\x1b[?25l", "\x1b[?25h"):
            visible = part.endswith("h")
        else:
            assert part.endswith("m"), f"{part!r} moves the cursor in a way that this terminal does not know"
    left = "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n") if any(lines) else []
    return left, visible and (row, column) == (len(left), 0)
