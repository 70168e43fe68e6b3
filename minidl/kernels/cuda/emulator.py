"""Kernels run as plain Python, one GPU thread after another: without a GPU, and step by step in a debugger.

It stands in for the module `numba.cuda` in the kernels of this folder and has the names that they use. Where
threads wait for each other a kernel yields (rewriting.py): a thread is then a generator, and a block of threads a loop
that takes each to its next wait. Line numbers stay, so a
breakpoint in a kernel is reached once per thread, with `cuda.threadIdx` and all variables to look at.

It is stricter than a GPU. Shared and new memory is filled with NaN, every access is checked for its bounds, and two
threads that touch one element, at least one writing and no barrier between them, raise RaceError. `order` is the order
in which the threads of a block run; no right kernel depends on it.
"""

import functools
import inspect
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np

from minidl.kernels.cuda.emulated_memory import DeviceMemory, Now, RaceError, SharedArray, poisoned
from minidl.kernels.cuda.rewriting import DeviceFunction, Placed, Writing, rewrite, wait

__all__ = [
    "RaceError", "atomic", "blockDim", "blockIdx", "grid", "gridDim", "gridsize", "jit", "launches", "local",
    "shared", "shfl_down_sync", "shfl_xor_sync", "syncthreads", "threadIdx",
]  # fmt: skip

WARP = 32

launches: Counter[str] = Counter()  # of each kernel, by name, since the process began
order = "forward"  # or "reversed"
recorded: dict[int, tuple[Callable, set]] | None = None  # the arguments of every launch, by kernel, while a dict

threadIdx, blockIdx, blockDim, gridDim = (SimpleNamespace(x=0, y=0, z=0) for _ in range(4))
_now = Now()
_one_at_a_time = threading.Lock()


# What kernels call


def grid(dims: int):
    """The place of this thread in the whole grid: an int for dims=1, else a tuple of 2."""
    x = blockIdx.x * blockDim.x + threadIdx.x
    return x if dims == 1 else (x, blockIdx.y * blockDim.y + threadIdx.y)


def gridsize(dims: int):
    """How many threads the whole grid has: an int for dims=1, else a tuple of 2."""
    x = gridDim.x * blockDim.x
    return x if dims == 1 else (x, gridDim.y * blockDim.y)


class _Shared(Placed):
    """`shared.array`: memory of the block, the same for all its threads at one place in the text."""

    def array(self, shape, dtype, place, alignment=None) -> SharedArray:
        if place not in _now.shared:
            _now.shared[place] = SharedArray(shape, dtype, _now)
        return _now.shared[place]


class _Local:
    """`local.array`: memory of a thread, which no other thread touches: NumPy's own, as it is the fastest here."""

    def array(self, shape, dtype) -> np.ndarray:
        return poisoned(shape, dtype)


class _Atomic(Writing):
    """`atomic.add` and `atomic.max`: read, changed and written as one."""

    def add(self, array, place, value):
        return array.change(place, lambda old: old + value)

    def max(self, array, place, value):
        return array.change(place, lambda old: max(old, value))


shared, local, atomic = _Shared(), _Local(), _Atomic()


syncthreads = shfl_down_sync = shfl_xor_sync = wait  # in a kernel these become yields


# Launching


def jit(function: Callable | None = None, *, device: bool = False, **options):
    """Numba's decorator: a kernel, called as `kernel[blocks, threads](*arguments)`, or a device function.

    options: how Numba compiles it, of no concern here.
    """
    if function is None:
        return functools.partial(jit, device=device, **options)
    return DeviceFunction(function, options) if device else Kernel(function, options)


class Kernel:
    """A function that a grid of threads runs."""

    device = False

    def __init__(self, function: Callable, options: dict):
        functools.update_wrapper(self, function)
        self.py_func, self.targetoptions = function, options

    @functools.cached_property
    def _rewritten(self) -> tuple[Callable, bool, frozenset[str]]:
        return rewrite(self.py_func)

    def __getitem__(self, configuration: tuple) -> Callable:
        """configuration: (blocks, threads) in the grid and in a block, an int or a tuple of up to 3, and perhaps
        more."""
        return functools.partial(self._launch, _three(configuration[0]), _three(configuration[1]))

    def _launch(self, blocks: tuple[int, int, int], threads: tuple[int, int, int], *arguments) -> None:
        with _one_at_a_time:  # whichever thread of Python launches it
            self._launch_now(blocks, threads, arguments)

    def _launch_now(self, blocks: tuple[int, int, int], threads: tuple[int, int, int], arguments: tuple) -> None:
        launches[self.__name__] += 1
        if recorded is not None:
            recorded.setdefault(id(self), (self, set()))[1].add(tuple(map(_described, arguments)))
        function, waits, written = self._rewritten
        names = inspect.signature(self.py_func).parameters
        memory = [(a, n) for a, n in zip(arguments, names, strict=True) if isinstance(a, DeviceMemory)]
        storages = {a.storage for a, n in memory if n in written}
        watched = [_now if isinstance(a, DeviceMemory) and a.storage in storages else None for a in arguments]
        given = [a.seen(w) if isinstance(a, DeviceMemory) else a for a, w in zip(arguments, watched, strict=True)]
        blockDim.x, blockDim.y, blockDim.z = threads
        gridDim.x, gridDim.y, gridDim.z = blocks
        places = [(x, y, z) for z, y, x in itertools.product(*(range(n) for n in reversed(threads)))]
        if order == "reversed":
            places.reverse()
        run = _run_in_step if waits else _run_through
        with np.errstate(all="ignore"):
            _now.new_launch()
            for z, y, x in itertools.product(*(range(n) for n in reversed(blocks))):
                blockIdx.x, blockIdx.y, blockIdx.z = x, y, z
                _now.new_block()
                run(function, given, places, threads)


def _three(size) -> tuple[int, int, int]:
    size = (size,) if isinstance(size, int) else tuple(size)
    return (*size, *(1,) * (3 - len(size)))


def _described(argument):
    """What of a launch's argument decides which machine code it needs."""
    if isinstance(argument, DeviceMemory):
        return argument.dtype
    if isinstance(argument, tuple):
        return type(argument), *map(_described, argument)
    return type(argument)


def _enter(place) -> None:
    threadIdx.x, threadIdx.y, threadIdx.z = place
    _now.enter(place)


def _run_through(function: Callable, arguments, places, threads) -> None:
    """A block in which no thread waits for another."""
    for place in places:
        _enter(place)
        function(*arguments)


def _run_in_step(function: Callable, arguments, places, threads) -> None:
    """A block in which threads wait: take each to its next wait, shuffles warp by warp, until all have returned."""
    running = {place: function(*arguments) for place in places}
    rank = {place: place[0] + threads[0] * (place[1] + threads[1] * place[2]) for place in places}
    by_warp: dict[int, list] = {}
    for place in places:
        by_warp.setdefault(rank[place] // WARP, []).append(place)
    answers = dict.fromkeys(places)
    while running:
        barriers = set()
        for warp in by_warp.values():
            barriers |= _run_warp(running, warp, rank, answers)
        if len(barriers) > 1:
            raise RuntimeError(f"threads of one block wait at different barriers: lines {sorted(barriers)}")
        _now.epoch += 1


def _run_warp(running: dict[tuple, Iterator], warp: list, rank, answers) -> set[int]:
    """Run a warp through its shuffles until all its threads are at a barrier or done -> the barriers' lines."""
    while True:
        waiting = {}
        for place in [p for p in warp if p in running]:
            _enter(place)
            try:
                waiting[place] = running[place].send(answers[place])
            except StopIteration:
                del running[place]
            answers[place] = None
        kinds = {(name, line) for name, line, *_ in waiting.values()}
        if not kinds or all(name == "syncthreads" for name, _ in kinds):
            return {line for _, line in kinds}
        if len(kinds) > 1:
            raise RuntimeError(f"threads of one warp wait at different places: {sorted(kinds)}")
        values = {rank[place] % WARP: value for place, (_, _, _, value, _) in waiting.items()}
        for place, (name, line, mask, _, distance) in waiting.items():
            lane = rank[place] % WARP
            other = lane ^ distance if name == "shfl_xor_sync" else lane + distance
            if other >= WARP:
                other = lane
            named = mask >> lane & mask >> other & 1
            if not named or other not in values:  # what a GPU gives then, nobody knows
                why = "that is not there" if named else f"the mask {mask:#x} does not name both"
                raise RuntimeError(f"{name} in line {line}: lane {lane} of a warp asks lane {other}, {why}")
            answers[place] = values[other]
