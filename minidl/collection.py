"""Garbage collection, held off where much is made at once that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """In the `with` block, or the function so decorated, Python looks for no cycles of garbage.

    Each some hundred new objects have it look through the young ones, and some ten thousand through all there are,
    which takes tens of milliseconds once a few packages are imported. It finds nothing among lists of instructions.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
