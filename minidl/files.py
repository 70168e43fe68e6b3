"""Files that are replaced whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes its place when the `with` block ends, and is gone if it fails.

    So a full disk or Ctrl-C leaves an older file as it was. What is no regular file, a pipe say, is written directly.
    PermissionError if the older file must not be written.
    """
    target = Path(os.path.realpath(path))  # of a link, the file that it leads to
    if target.exists() and not target.is_file():
        yield target
        return
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
