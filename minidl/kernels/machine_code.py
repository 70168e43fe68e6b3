"""Machine code of kernels on disk: what is damaged is compiled anew, what cannot be written is not kept.

Numba's own cache ends every later run when one of its files is cut short, or when the disk is full, and does not know
a kernel again that a function made.
"""

import hashlib
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import numba
from numba.core import config
from numba.core.caching import NullCache

from minidl import files
from minidl.caches import cache_folder
from minidl.notices import warn_once

SEAL = 16  # bytes


def folder(here: Path, sources: tuple[Path, ...]) -> Path | None:
    """A folder that can be written, for the kernels in `here`: in $NUMBA_CACHE_DIR, beside them, or in the user's
    caches; None, with a warning, without, or if there are no sources by which to see that code is out of date."""
    name = f"kernels-{hashlib.sha256(os.fsencode(here)).hexdigest()[:16]}"  # of this copy of minidl
    users = cache_folder()
    for found in (
        config.CACHE_DIR and Path(config.CACHE_DIR, name),
        here / "__pycache__",
        users and users / name,
    ):
        with suppress(OSError):
            if found and sources:
                found.mkdir(parents=True, exist_ok=True)
                files.check_takes_files(found)
                return found
    warn_once(
        "minidl compiles its kernels anew in every process: no folder can be written to keep them; name one in "
        "NUMBA_CACHE_DIR"
    )
    return None


class MachineCode(NullCache):
    """What Numba asks for the code of one kernel before it compiles, and gives it to after that.

    A file for each signature begins with a seal, the hash of all that the code depends on and of the code itself: the
    versions of Python and Numba, the sources of the kernels, which may call each other, the processor, the signature.
    So no file is taken that is damaged, another's or out of date, and nothing of it is unpickled. Files are replaced
    whole, so that processes can write the same one at once.

    A subclass says how code becomes bytes, in `packed` and `unpacked`.
    """

    def __init__(self, name: str, folder: Path, sources: tuple[Path, ...], identity: str = "", versions: str = ""):
        """sources: what code is made of. identity: what tells kernels of one name apart. versions: of other packages
        that code depends on."""
        self.name, self.folder, self.sources = name, folder, sources
        self.identity, self.versions = identity, versions

    def packed(self, data) -> bytes | None:
        """What was compiled, as bytes; None if it is of use in this process alone."""
        raise NotImplementedError

    def unpacked(self, code: bytes, target_context):
        """What `packed` was given."""
        raise NotImplementedError

    @property
    def cache_path(self) -> str:
        return str(self.folder)

    def load_overload(self, sig, target_context):
        """The compiled kernel; None if there is none to be had."""
        target_context.refresh()
        path, key = self._file(sig, target_context.codegen())
        with suppress(OSError):
            content = path.read_bytes()
            code = content[SEAL:]
            if content[:SEAL] == _seal(key, code):
                return self.unpacked(code, target_context)
        return None

    def save_overload(self, sig, data):
        code = self.packed(data)
        if code is None:
            return
        path, key = self._file(sig, data.codegen)
        with suppress(OSError):
            path.unlink(missing_ok=True)  # `files.write` refuses to replace a file that must not be written
        with suppress(OSError):
            files.write(path, _seal(key, code) + code)

    def _file(self, sig, codegen) -> tuple[Path, bytes]:
        """The file for a signature, and what its code depends on."""
        which = repr((sig, codegen.magic_tuple(), self.identity)).encode()
        python = f"py{sys.version_info[0]}{sys.version_info[1]}"
        path = self.folder / f"{self.name}.{hashlib.sha256(which).hexdigest()[:16]}.{python}.nbc"
        return path, which + self.name.encode() + self.versions.encode() + _origin(self.sources)


def _seal(key: bytes, code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=SEAL, key=hashlib.sha256(key).digest()).digest()


@cache
def _origin(sources: tuple[Path, ...]) -> bytes:
    """The versions and sources that all kernels are compiled from."""
    content = b"".join(path.read_bytes() for path in sources)
    return f"{sys.version} {numba.__version__} {hashlib.sha256(content).hexdigest()}".encode()
