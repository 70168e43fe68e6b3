"""What a process sends to another: results, reports and errors, as bytes and back."""

from __future__ import annotations

import contextlib
import pickle
import traceback

import cloudpickle

from minidl.processes import ChildProcess, WorkerError


def packed(what: str, content: object) -> bytes:
    """For another process. TypeError, which says what it is, if it cannot be sent."""
    try:
        return cloudpickle.dumps(content)
    except Exception as error:
        raise TypeError(f"{what}, a {type(content).__name__}, cannot be sent to the launcher: {error}") from error


def unpacked(process: ChildProcess, kind: str, content: bytes) -> object:
    """What the process has sent. WorkerError if it cannot be made again here."""
    try:
        return pickle.loads(content)
    except Exception as error:
        text = f"the {kind} of {process.name} ({len(content):,} bytes) cannot be made again in this process"
        raise WorkerError(f"{text}: {type(error).__name__}: {error}", process.rank) from error


def packed_error(error: BaseException) -> bytes:
    """The error being handled, for another process: its traceback, and the error itself if it can be sent."""
    text = traceback.format_exc()
    try:
        sent = cloudpickle.dumps(error)
        pickle.loads(sent)  # an exception with arguments of its own often cannot be made again
    except Exception:
        sent = None
    return pickle.dumps((text, sent))


def unpacked_error(process: ChildProcess, content: bytes) -> WorkerError:
    """The error that the process has sent."""
    text, sent = pickle.loads(content)
    error = WorkerError(f"{process.name} raised:\n\n{text}", process.rank)
    if sent is not None:
        with contextlib.suppress(Exception):  # it is of a class that this process cannot import
            error.__cause__ = pickle.loads(sent)
    return error
