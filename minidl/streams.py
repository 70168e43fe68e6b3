"""Output for people, by which no run ends: what a terminal lacks is replaced, and one that is gone is given up."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


def fill_standard_streams() -> None:
    """Open /dev/null, where there is one, in place of a standard stream that is closed.

    Else the next file that is opened, shared memory say, takes its number, and whatever a library prints goes there;
    and a new process that gets that number as its input, output or errors loses the file.
    """
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


class Lasting(io.TextIOBase):
    """A text stream that writes to `stream` as long as that takes anything, and never raises OSError.

    Characters that the encoding of `stream` lacks become question marks. `failure`: the error of the first write that
    failed, after which nothing is written. A `stream` of None, which Python has for a closed descriptor, takes nothing.
    To close this stream leaves `stream` open.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    @property
    def encoding(self) -> str | None:
        return getattr(self._stream, "encoding", None)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # the stream has been closed
            return False

    def fileno(self) -> int:
        return super().fileno() if self._stream is None else self._stream.fileno()

    def write(self, text: str) -> int:
        self._try(self._write, text)
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "replace").decode(encoding))

    def flush(self) -> None:
        self._try(self._flush)

    def _flush(self) -> None:
        self._stream.flush()

    def _try(self, act, *arguments) -> None:
        if self._stream is not None and self.failure is None:
            try:
                act(*arguments)
            except (OSError, ValueError) as error:  # ValueError: the stream has been closed
                self.failure = error

    def settle(self) -> None:
        """Flush; what a stream that failed still holds goes nowhere, or Python would fail on it when it ends."""
        self.flush()
        if self.failure is not None:
            with contextlib.suppress(OSError, ValueError):  # no file of the system lies below it
                nowhere = os.open(os.devnull, os.O_WRONLY)
                try:
                    os.dup2(nowhere, self._stream.fileno())
                finally:
                    os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[Lasting]:
    """Make sys.stdout and sys.stderr lasting inside the `with` block; gives the one for stdout.

    Standard descriptors that are closed lead to /dev/null from now on.
    """
    fill_standard_streams()
    out, errors = Lasting(sys.stdout), Lasting(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            yield out
        finally:
            out.settle()
            errors.settle()
