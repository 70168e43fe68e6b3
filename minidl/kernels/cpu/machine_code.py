"""Machine code of kernels on disk: what is damaged is compiled anew, what cannot be written is not kept.

Numba's own cache ends every later run when one of its files is cut short, or when the disk is full.
"""

import hashlib
import os
import pickle
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import numba
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from minidl import files
from minidl.caches import cache_folder

HERE = Path(__file__).parent
SHARED = [*HERE.parent.glob("*_rules.py"), HERE.parents[1] / "philox.py"]  # with the GPU
SOURCES = sorted([*HERE.glob("compil*.py"), *HERE.glob("lanes.py"), *SHARED])  # what compiled code is made of
SEAL = 16  # bytes


def folder() -> Path | None:
    """A folder that can be written: in $NUMBA_CACHE_DIR, beside the kernels, or in the user's caches; None without."""
    name = f"kernels-{hashlib.sha256(os.fsencode(HERE)).hexdigest()[:16]}"  # of this copy of minidl
    users = cache_folder()
    for found in (
        config.CACHE_DIR and Path(config.CACHE_DIR, name),
        HERE / "__pycache__",
        users and users / name,
    ):
        with suppress(OSError):
            if found and SOURCES:
                found.mkdir(parents=True, exist_ok=True)
                files.check_takes_files(found)
                return found
    return None


class MachineCode(NullCache):
    """What Numba asks for the code of one kernel before it compiles, and gives it to after that.

    A file for each signature begins with a seal, the hash of all that the code depends on and of the code itself: the
    versions of Python and Numba, the sources of the kernels, which may call each other, the processor, the signature.
    So no file is taken that is damaged, another's or out of date, and nothing of it is unpickled. Files are replaced
    whole, so that processes can write the same one at once.
    """

    def __init__(self, function, folder: Path):
        self.name, self.folder = f"{function.__module__}.{function.__qualname__}", folder

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
                return CompileResult._rebuild(target_context, *pickle.loads(code))
        return None

    def save_overload(self, sig, data):
        if data.library.has_dynamic_globals:  # addresses of this process
            return
        path, key = self._file(sig, data.codegen)
        code = dumps(data._reduce())
        with suppress(OSError):
            path.unlink(missing_ok=True)  # `files.write` refuses to replace a file that must not be written
        with suppress(OSError):
            files.write(path, _seal(key, code) + code)

    def _file(self, sig, codegen) -> tuple[Path, bytes]:
        """The file for a signature, and what its code depends on."""
        which = repr((sig, codegen.magic_tuple())).encode()
        python = f"py{sys.version_info[0]}{sys.version_info[1]}"
        path = self.folder / f"{self.name}.{hashlib.sha256(which).hexdigest()[:16]}.{python}.nbc"
        return path, which + self.name.encode() + _origin()


def _seal(key: bytes, code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=SEAL, key=hashlib.sha256(key).digest()).digest()


@cache
def _origin() -> bytes:
    """The versions and sources that all kernels are compiled from."""
    sources = b"".join(path.read_bytes() for path in SOURCES)
    return f"{sys.version} {numba.__version__} {hashlib.sha256(sources).hexdigest()}".encode()
