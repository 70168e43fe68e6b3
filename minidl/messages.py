"""Whole messages on a stream socket between two processes, either of which may die in the middle of one."""

from __future__ import annotations

import socket
import struct
import threading

HEADER = struct.Struct("!8sQ")  # kind, bytes of the content
Message = tuple[str, bytearray]


class Messages:
    """One end of a connection. A message is a kind, a word of at most 8 letters, and a content. One thread reads.

    ended: the other end is closed, and nothing more comes.
    """

    def __init__(self, end: socket.socket):
        self.ended = False
        self._socket, self._lock = end, threading.Lock()
        self._header: bytes | None = None  # of the message that is coming
        self._expect(bytearray(HEADER.size))

    @classmethod
    def pair(cls) -> tuple[Messages, Messages]:
        """The two ends of a new connection."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: str, content: bytes) -> None:
        """Send a message, whole even where threads send at once. Waits for room; OSError if the other end is closed."""
        with self._lock:
            self._socket.sendall(HEADER.pack(kind.encode(), len(content)))
            self._socket.sendall(content)

    def receive(self) -> Message:
        """Wait for the next message. EOFError if none comes any more."""
        message = self._read(0)
        if message is None:
            raise EOFError("the other end of the connection is closed")
        return message

    def take(self) -> Message | None:
        """The next message, if it has come whole by now; never waits."""
        return self._read(socket.MSG_DONTWAIT)

    def missing(self) -> str:
        """How much of a message had come when the connection ended in its middle; empty if it did not."""
        if self._header is None:
            return ""
        kind, size = _unpacked(self._header)
        return f"{self._filled:,} of {size:,} bytes of its {kind}"

    def _expect(self, content: bytearray) -> None:
        self._content, self._filled = content, 0

    def _read(self, flags: int) -> Message | None:
        while True:
            while self._filled < len(self._content):
                try:
                    count = self._socket.recv_into(memoryview(self._content)[self._filled :], 0, flags)
                except BlockingIOError:
                    return None
                except ConnectionResetError:  # it was closed with messages to it unread
                    count = 0
                if not count:
                    self.ended = True
                    return None
                self._filled += count
            if self._header is not None:
                (kind, _), content, self._header = _unpacked(self._header), self._content, None
                self._expect(bytearray(HEADER.size))
                return kind, content
            self._header = bytes(self._content)
            self._expect(bytearray(_unpacked(self._header)[1]))


def _unpacked(header: bytes) -> tuple[str, int]:
    kind, size = HEADER.unpack(header)
    return kind.rstrip(b"\0").decode(), size
