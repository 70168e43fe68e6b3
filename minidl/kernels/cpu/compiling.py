"""How kernels are compiled: the options that all share, where machine code is kept, and who is told.

A first use takes seconds and says so, once in a process; later ones find the machine code on disk, in __pycache__ or,
where that cannot be written, in the user's cache folder.
"""

import logging

from numba.core import event
from numba.core.caching import FunctionCache

FLAGS = {"reassoc", "contract", "arcp", "nsz"}  # not nnan: a NaN must come out of a kernel as a NaN


def _can_keep() -> bool:
    """Whether there is a folder for machine code."""
    try:
        FunctionCache(_can_keep)
    except RuntimeError:
        logging.getLogger("minidl").warning(
            "minidl compiles its kernels anew in every process: no folder can be written to keep them; name one in "
            "NUMBA_CACHE_DIR"
        )
        return False
    return True


OPTIONS = {"nogil": True, "cache": _can_keep(), "error_model": "numpy"}


class _Announce(event.Listener):
    """Told by Numba before it compiles; what it loads from its cache is not compiled."""

    told = False

    def on_start(self, happening):
        if not self.told and happening.data["dispatcher"].py_func.__module__.startswith("minidl."):
            self.told = True
            logging.getLogger("minidl").warning(
                "minidl compiles its kernels for this processor, which takes some seconds%s",
                "; they are kept for next time" if OPTIONS["cache"] else "",
            )

    def on_end(self, happening):
        pass


event.register("numba:compile", _Announce())
