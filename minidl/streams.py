"""Output for people, by which no run ends: what a terminal lacks is replaced, and one that is gone is given up."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Lasting:
    """A text stream that writes to `stream` as long as that takes anything, and never raises OSError.

    Characters that the encoding of `stream` lacks become question marks. `failure`: the error of the first write that
    failed, after which nothing is written. A `stream` of None, which Python has for a closed descriptor, takes nothing.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = io.StringIO() if stream is None else stream
        self.failure: OSError | ValueError | None = None

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
        self._try(self._stream.flush)

    def _try(self, act, *arguments) -> None:
        if self.failure is None:
            try:
                act(*arguments)
            except (OSError, ValueError) as error:  # ValueError: the stream has been closed
                self.failure = error

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

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

    Standard descriptors that are closed lead to /dev/null from now on: else the next file or socket would be one of
    them, and get what a worker or a library prints.
    """
    with contextlib.suppress(OSError):  # a bare chroot has no /dev/null
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    out, errors = Lasting(sys.stdout), Lasting(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            yield out
        finally:
            out.settle()
            errors.settle()
