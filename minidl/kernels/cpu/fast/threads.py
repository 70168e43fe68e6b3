"""Threads of our own: a large kernel is cut into slices that run at the same time, with one BLAS thread in each.

NumPy, BLAS and compiled kernels release Python's lock, so threads do, without processes. BLAS has a pool of threads
too, and two pools that wait for each other by spinning cost 7 to 10 times the work; so the first time that a kernel is
cut, BLAS is set to one thread, and its number of threads becomes ours.
"""

import threading
from collections.abc import Callable

import numpy as np
from threadpoolctl import ThreadpoolController

THREAD = 1 << 15  # elements that are worth a thread of their own, where each is read once or twice

_threads: int | None = None  # how many; None until it is asked or set
_pool: list["_Thread"] = []
_free = threading.Lock()  # held while a kernel is cut: one inside another, or from another thread, runs whole


def get_num_threads() -> int:
    """On how many threads large kernels run: as many as BLAS had, unless set."""
    global _threads
    if _threads is None:
        found = [library["num_threads"] for library in _blas().info()]
        _take(max(found, default=1))
    return _threads


def set_num_threads(threads: int) -> None:
    """Run large kernels on so many threads, and BLAS on one in each of them; ValueError if it is below 1."""
    if threads < 1:
        raise ValueError(f"set_num_threads: {threads} threads, there must be at least 1")
    _take(threads)


def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _take(threads: int) -> None:
    global _threads
    _threads = threads
    for library in _blas().lib_controllers:
        library.set_num_threads(1)


def thread_rows(width: int, thread: int = THREAD) -> int:
    """How many rows of `width` elements (or multiplications) are worth a thread, if `thread` of them are."""
    return -(-thread // max(1, width))


def split(rows: int, function: Callable[[slice], object], least: int = 1) -> None:
    """Call `function(part)` with slices that cover range(rows), at the same time; each has `least` rows or more.

    An error in one of them is raised here, when all have ended.
    """
    parts = rows // least
    if parts > 1:
        parts = min(parts, _threads or get_num_threads())
    if parts < 2 or not _free.acquire(blocking=False):
        function(slice(0, rows))
        return
    try:
        while len(_pool) < parts - 1:
            _pool.append(_Thread())
        bounds = [rows * i // parts for i in range(parts + 1)]
        others = _pool[: parts - 1]
        for thread, start, end in zip(others, bounds[1:-1], bounds[2:], strict=True):
            thread.start(function, slice(start, end))
        try:
            function(slice(0, bounds[1]))
        finally:
            errors = [thread.wait() for thread in others]
        for error in filter(None, errors):
            raise error
    except KeyboardInterrupt:  # a thread may still run: what it finishes later must not be taken for the next call's
        _pool.clear()
        raise
    finally:
        _free.release()


def split_sum(rows: int, function: Callable[[slice], np.ndarray], least: int = 1) -> np.ndarray:
    """The sum of the arrays that `function` gives for the slices of `split`, always added in the same order."""
    results = {}

    def keep(part):
        results[part.start] = function(part)

    split(rows, keep, least)
    total, *others = (results[start] for start in sorted(results))
    for other in others:
        total += other
    return total


class _Thread:
    """A thread that waits for one call at a time. Two locks, as they wake it sooner than a queue."""

    def __init__(self):
        self.given, self.done = threading.Lock(), threading.Lock()
        self.given.acquire()
        self.done.acquire()
        self.function = self.part = self.error = None
        threading.Thread(target=self._run, name="minidl kernel", daemon=True).start()

    def start(self, function: Callable, part: slice) -> None:
        self.function, self.part = function, part
        self.given.release()

    def wait(self) -> BaseException | None:
        self.done.acquire()
        return self.error

    def _run(self) -> None:
        while True:
            self.given.acquire()
            self.error = None
            try:
                self.function(self.part)
            except BaseException as error:
                self.error = error
            self.function = None
            self.done.release()
