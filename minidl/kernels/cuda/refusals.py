"""What kernels refuse: a label that is no class, an index that is out of bounds, a division by 0.

A kernel cannot raise. It notes in one word on the GPU which check failed and goes on with something harmless, and the
host looks at that word when it waits for the GPU anyway: for values (`to_numpy`, Download.numpy), or in
minidl.cuda.synchronize. So the error may come later than the call that caused it, and what was computed or written in
between is worthless; of several errors one is raised. With MINIDL_CUDA_SYNC=1, and in the emulator, the call itself
looks, and raises the sentence of the CPU before anything else is launched.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from minidl.kernels.cuda.device_memory import compute, device
from minidl.kernels.cuda.kernel_launch import SYNCHRONOUS, launch
from minidl.kernels.cuda.target import EMULATED, cuda

AT_ONCE = EMULATED or SYNCHRONOUS
BELOW = 1 << 31  # added to the value in the lower 32 bits of the word, so that they have no sign
VALUES = 1 << 32


class Check(NamedTuple):
    """The error of a check that failed. late: its sentence with {} where the noted value goes; at_once: makes the
    sentence at the call, where the arrays can still be looked at."""

    error: type[Exception]
    late: str
    at_once: Callable[[], str]


@cuda.jit(device=True)
def refuse(word, number, value):
    """Note that the check of this number failed for an integer, of which 32 bits are kept. The largest note stays."""
    kept = min(max(np.int64(value), np.int64(-BELOW)), np.int64(BELOW - 1))
    cuda.atomic.max(word, 0, np.int64(number) * VALUES + kept + BELOW)


_numbers: dict[tuple[type[Exception], str], int] = {}  # of all checks so far, from 1 on: in the word 0 is no error
_last: device.Event | None = None  # after the last kernel that checks, until it was looked at
_looking = device.Stream()  # waits for no kernel


@cache
def _word():
    """-> the word as an argument of kernels, and its block of memory, which is not the pool's: it stays."""
    block = device.allocate(np.int64().nbytes)
    device.to_device(block, 0, np.zeros(1, np.int64), compute)
    return device.elements(block, 0, 1, np.dtype(np.int64)), block


def launch_checked(check: Check, kernel, blocks, threads, *arguments) -> None:
    """launch, for a kernel that may `refuse`: it gets the word and the number of the check before the `arguments`."""
    global _last
    number = _numbers.setdefault((check.error, check.late), len(_numbers) + 1)
    launch(kernel, blocks, threads, _word()[0], number, *arguments)
    if not AT_ONCE:
        _last = device.Event(compute)
    elif _taken():
        raise check.error(check.at_once())


def look() -> None:
    """Raise what a kernel refused that the host has waited for; afterwards nothing is noted any more."""
    global _last
    if _last is None:
        return
    if _last.done():  # else a later look will see what it notes
        _last = None
    noted = _taken()
    if noted:
        number, value = divmod(noted, VALUES)
        error, late = next(check for check, n in _numbers.items() if n == number)
        raise error(late.format(value - BELOW))


def _taken() -> int:
    """The word, in whose place is 0 from now on."""
    word, (_, block) = np.zeros(1, np.int64), _word()
    device.to_host(word, block, 0, _looking)
    noted = int(word[0])
    if noted:
        device.synchronize()  # kernels under way may note more
        device.to_device(block, 0, np.zeros(1, np.int64), _looking)
    return noted
