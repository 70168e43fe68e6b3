"""The one door through which files are written: whole or not at all, with the mode and of the kind that they had."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # a write fails with these, and names no file
NAME_END = 50  # characters of the name, with its suffix, that a part file's name has too: names end at 255 bytes
PICTURES = (".png", ".svg")  # endings
STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Replace `path` by a file of `content`, text as UTF-8. Raises what `replacing` does."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(path: str | os.PathLike) -> None:
    """Raises what `replacing` would, unless a file can be written to `path`; leaves no trace, and opens no pipe."""
    if _older(path) is None:
        try:
            check_takes_files(os.path.dirname(os.path.realpath(path)))
        except OSError as error:
            error.filename = os.fspath(path)
            raise


def check_picture(path: str | os.PathLike) -> None:
    """ValueError unless `path` has the ending of a picture that can be drawn."""
    if os.path.splitext(os.fspath(path))[1].lower() not in PICTURES:
        raise ValueError(f"{os.fspath(path)!r} does not end in {' or '.join(PICTURES)}")


def check_takes_files(folder: str | os.PathLike) -> None:
    """OSError, which names the folder, unless a new file can be put into it; leaves no trace."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        error.filename = os.fspath(folder)
        raise


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the path of a part file to write to; it takes the place of `path` when the `with` block ends whole.

    If the block fails, by a full disk, say, or Ctrl-C, the part is gone and an older file is as it was. The file that a
    link leads to is replaced, not the link. The mode is the older file's, for a new one what the umask leaves of 0666.
    What is no regular file, a pipe or a device, is written into; so is a file whose folder takes no new one, and what
    a descriptor of this process leads to, which /dev/stdout names: there it is written where the descriptor stands.

    Raises OSError, which names `path`: IsADirectoryError, PermissionError if an older file must not be written.
    """
    older = _older(path)
    target = Path(os.path.realpath(path))
    ours = _descriptor(path)
    into = ours is not None or older and not (stat.S_ISREG(older.st_mode) and os.access(target.parent, os.W_OK))
    folder = Path(tempfile.gettempdir()) if into else target.parent
    # Random, so that no two processes or threads have one; opened exclusively, so never a link that lies in wait.
    part = folder / f".part-{secrets.token_hex(8)}-{target.name[-NAME_END:]}"
    with _naming(path, part):
        # Nobody reads a part who may not read the file itself.
        mode = _new_file(part, 0o600 if older else 0o666)
        try:
            yield part
            if into:
                with open(part, "rb") as whole, open(path if ours is None else os.dup(ours), "wb") as there:
                    shutil.copyfileobj(whole, there)
            else:
                _settle(part, stat.S_IMODE(older.st_mode) if older else mode, older)
                os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


def _older(path: str | os.PathLike) -> os.stat_result | None:
    """What is at `path`, None if nothing is; OSError if it is a folder, or must not be written."""
    if not os.path.exists(path):
        return None
    older = os.stat(path)
    if stat.S_ISDIR(older.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    return older


def _descriptor(path: str | os.PathLike) -> int | None:
    """The descriptor of this process that `path` names, as /dev/stdout and /dev/fd/63 do; else None."""
    path = os.path.abspath(path)
    numbered = re.fullmatch("/(?:dev|proc/self)/fd/([0-9]+)", os.fsdecode(path))
    return int(numbered[1]) if numbered else STANDARD.get(path)


def _new_file(path: Path, mode: int) -> int:
    """Make an empty file where nothing is; what the umask leaves of its mode."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _settle(part: Path, mode: int, older: os.stat_result | None) -> None:
    """Have the part's bytes on the disk, then its owner and mode right: libraries put files of their own there."""
    fd = os.open(part, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    if older and hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):  # only root gives files away
            os.chown(part, older.st_uid, older.st_gid)
    os.chmod(part, mode)


@contextmanager
def _naming(path: str | os.PathLike, part: Path) -> Iterator[None]:
    """An error of the part file, or of a write that names no file, names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename == str(part) or error.filename is None and error.errno in NO_ROOM:
            error.filename = os.fspath(path)
            del error.filename2  # None would be shown as a second name
        raise
