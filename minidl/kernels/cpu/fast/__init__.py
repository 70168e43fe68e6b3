"""What makes large arrays quick, apart from the plain kernels: compiled loops, Winograd, threads, blocks in the cache.

A plain kernel hands over in one line, `if fast.use_compiled(x): return fast.pooling.max_pool2d(x, …)`. The modules that
kernels hand over to are attributes here, imported, and Numba with them, when a kernel first needs one.
"""

import importlib
from types import ModuleType

from minidl.kernels.algorithms import COMPILED_FROM, is_compiled

MODULES = (
    "batch_norm", "direct", "dropout", "elementwise", "images", "losses", "normalization", "pooling", "products",
    "recurrent", "softmax", "updates", "winograd",
)  # fmt: skip


def use_compiled(x, least: int = COMPILED_FROM) -> bool:
    """Whether the array x is for compiled code: of float32, and of `least` elements or more."""
    return is_compiled(x.size, x.dtype, least)


def __getattr__(name: str) -> ModuleType:
    """One of MODULES, at its first use."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
