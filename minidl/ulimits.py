"""The limits of this process (`ulimit`), and which of them was in the way of something."""

from __future__ import annotations

import errno
import resource

# What a call that hits a limit fails with -> the limit, the shell's name for it, what it counts
OF_ERROR = {
    errno.EMFILE: ("RLIMIT_NOFILE", "ulimit -n", "open files at once"),
    errno.EAGAIN: ("RLIMIT_NPROC", "ulimit -u", "processes and threads of this user"),
    errno.ENOMEM: ("RLIMIT_AS", "ulimit -v", "of addresses"),
    errno.EFBIG: ("RLIMIT_FSIZE", "ulimit -f", "in a file"),
}
IN_BYTES = ("RLIMIT_AS", "RLIMIT_FSIZE")


def limit(name: str) -> int | None:
    """The soft limit `name` of this process, RLIMIT_AS say; None where there is none."""
    number = getattr(resource, name, None)
    soft = resource.RLIM_INFINITY if number is None else resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def explained(error: OSError, what: str) -> OSError:
    """`error` anew: what could not be done, why, and the limit that may be in the way if this process has one."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in OF_ERROR:
        name, command, counted = OF_ERROR[error.errno]
        value = limit(name)
        if value is not None:
            text += f"; this process may have {mebibytes(value) if name in IN_BYTES else value} {counted} ({command})"
    return OSError(error.errno, text)


def mebibytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB" if nbytes >= 2**20 else f"{nbytes:,} bytes"
