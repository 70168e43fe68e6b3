"""Log records of workers, handed to the parent's handlers through multiprocessing-logging."""

import logging
import multiprocessing
import pickle
import warnings
from collections.abc import Callable

from multiprocessing_logging import MultiProcessingHandler, install_mp_handler, uninstall_mp_handler

from minidl import notices
from minidl.processes import ChildProcess


def levels() -> dict[str, int]:
    """Logger name -> level, of every logger of this process that has one of its own; the root's name is empty."""
    named = logging.root.manager.loggerDict.items()
    own = {name: logger.level for name, logger in named if isinstance(logger, logging.Logger) and logger.level}
    return own | {"": logging.root.level}


class ForwardToLauncher(logging.Handler):
    """Gives every log record, with this worker's rank, to `send`, which takes it to the launcher's handlers."""

    def __init__(self, send: Callable[[logging.LogRecord], None], rank: int):
        super().__init__()
        self._send, self._rank = send, rank

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.msg, record.args = record.getMessage(), None
            if record.exc_info:
                record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
                record.exc_info = None
            record.rank = self._rank
            self._send(record)
        except Exception:
            self.handleError(record)


class LogRelay:
    """Hands records to the parent's loggers; while it does, the root's handlers have one writer for all processes.

    The handlers are wrapped when the first record comes and unwrapped, all records written, at the end of the `with`
    block. A record carries `rank`.
    """

    def __enter__(self):
        self._installed = False
        return self

    def handle(self, process: ChildProcess, content: bytes) -> None:
        """Hand on the record that `process` has sent."""
        try:
            record = pickle.loads(content)
        except Exception as error:
            warnings.warn(f"a log record of {process.name} cannot be made again here: {error!r}", stacklevel=2)
            return
        if hasattr(record, "once") and not notices.is_new(record.once):
            return
        if not self._installed:
            self._installed = True
            self._install()
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

    def _install(self) -> None:
        why = _no_single_writer()
        if why:
            warnings.warn(f"{why}: workers' log records go to the handlers directly", stacklevel=2)
        else:
            install_mp_handler()

    def __exit__(self, *error):
        wrapped = [h for h in logging.getLogger().handlers if isinstance(h, MultiProcessingHandler)]
        if self._installed and wrapped:
            uninstall_mp_handler()
            for handler in wrapped:  # not handler.close(), which would close the user's handler too
                handler._is_closed = True
                handler._receive_thread.join()


def _no_single_writer() -> str:
    """Why multiprocessing-logging cannot be used here; empty if it can."""
    method = multiprocessing.get_start_method()
    if method != "fork":
        return f"multiprocessing-logging needs the start method 'fork', this Python uses {method!r}"
    try:
        multiprocessing.Lock()
    except (OSError, ImportError) as error:  # /dev/shm is missing or full, or cannot be written
        return f"multiprocessing-logging needs semaphores, of which there are none ({error})"
    return ""
