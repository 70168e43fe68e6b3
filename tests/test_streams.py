"""Output for people: what becomes of it when the terminal lacks characters, or is gone."""

import errno
import gc
import io
import subprocess
import sys
import tracemalloc

import pytest

from minidl.streams import Lasting, lasting_streams
from tests.terminals import BROKEN, terminal


@pytest.mark.parametrize(
    ("encoding", "text", "arrives"),
    [
        ("ascii", "2 × 3 µs", b"2 ? 3 ?s"),
        ("latin-1", "2 × 3 ≤ 7", b"2 \xd7 3 ? 7"),
        ("cp437", "│ 3 µs ≤ ×", b"\xb3 3 \xe6s \xf3 ?"),
        ("utf-8", "a file \udcff ×", b"a file ? \xc3\x97"),
        ("utf-8", "×", b"\xc3\x97"),
    ],
)
def test_characters_that_the_terminal_lacks_are_replaced(encoding, text, arrives):
    stream = terminal(encoding)
    lasting = Lasting(stream)
    print(text, end="", file=lasting, flush=True)
    assert stream.buffer.getvalue() == arrives and lasting.failure is None


@pytest.mark.parametrize("kind", BROKEN)
def test_an_output_that_takes_nothing_raises_nothing_however_much_is_printed(kind):
    stream = terminal(kind)
    lasting = Lasting(stream)
    for _ in range(3):
        print("x" * 100_000, file=lasting, flush=True)
        lasting.writelines(["x" * 100_000, "y"])
    assert (lasting.failure is None) == (kind == "closed descriptor") and not lasting.isatty()
    lasting.settle()
    if stream is not None:
        stream.close()  # what it still holds has found a place


def test_after_a_write_that_failed_nothing_is_written():
    class Interrupted(io.StringIO):
        failing = False

        def write(self, text):
            if self.failing:
                self.failing = False
                raise OSError(5, "Input/output error")
            return super().write(text)

    stream = Interrupted()
    lasting = Lasting(stream)
    lasting.write("whole ")
    stream.failing = True
    lasting.write("lost ")
    lasting.write("after")
    lasting.settle()
    assert stream.getvalue() == "whole " and lasting.failure.strerror == "Input/output error"


def test_an_output_that_is_forgotten_leaves_the_stream_open():
    stream = io.StringIO()
    Lasting(stream).write("x")
    gc.collect()
    assert stream.getvalue() == "x" and not stream.closed


def test_what_is_printed_into_nothing_is_not_kept():
    lasting = Lasting(None)
    tracemalloc.start()
    try:
        for i in range(5):
            print("x" * 1_000_000, i, file=lasting)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_stream_that_was_closed_raises_nothing():
    stream = io.StringIO()
    stream.close()
    lasting = Lasting(stream)
    print("x", file=lasting, flush=True)
    lasting.settle()
    assert not lasting.isatty() and "closed file" in str(lasting.failure)


def test_standard_streams_last_inside_only(monkeypatch):
    before = terminal("closed pipe"), terminal("closed pipe")
    monkeypatch.setattr(sys, "stdout", before[0])
    monkeypatch.setattr(sys, "stderr", before[1])
    with lasting_streams() as out:
        print("x", flush=True)
        print("x", file=sys.stderr, flush=True)
        assert sys.stdout is out and out.failure.errno == errno.EPIPE
    assert (sys.stdout, sys.stderr) == before
    for stream in before:
        stream.close()


def test_a_closed_standard_descriptor_does_not_become_the_next_file(tmp_path):
    code = (
        "import os\n"
        "from minidl.streams import lasting_streams\n"
        "with lasting_streams():\n"
        "    print('into nothing')\n"
        f"    with open({str(tmp_path / 'a')!r}, 'w') as file:\n"
        "        file.write(str(file.fileno()))\n"
    )
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, timeout=60)
    assert int((tmp_path / "a").read_text()) > 2
