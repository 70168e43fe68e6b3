"""One at a time: what several threads may ask for, and only one can do, as it has the whole process to itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import TypeVar, cast

Function = TypeVar("Function", bound=Callable)
_lock = RLock()


def one_at_a_time(function: Function) -> Function:
    """`function`, for which a thread waits while another one is in any function so decorated.

    Blocks are run on meta to be priced: what is recorded, and whether a tape is, is the process's.
    """

    @wraps(function)
    def alone(*args, **kwargs):
        with _lock:
            return function(*args, **kwargs)

    return cast(Function, alone)
