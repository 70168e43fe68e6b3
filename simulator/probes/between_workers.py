"""Collectives and messages between two workers of this machine: as instructions call them, and as layers do."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor
from simulator.probes.timing import undisturbed

MESSAGE_BYTES = (64, 1 << 12, 1 << 15, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")  # of instructions
IN_LAYERS = (*COLLECTIVES, "reduce", "all_to_all")
SIDES = ("send", "recv")  # of a message


def communication(group: ProcessGroup) -> dict[str, list[tuple[float, float]]]:
    """(bytes, seconds) of each of COLLECTIVES, of IN_LAYERS and SIDES, "layers: " before their names, and of "send".

    That is, on the two ranks, the one and the other side of a message; inside layers they exchange messages.
    """
    times: dict[str, list[tuple[float, float]]] = {}
    for nbytes in MESSAGE_BYTES:
        runs = 100 if nbytes < 1 << 18 else 20 if nbytes < 1 << 22 else 6
        for name in COLLECTIVES:
            whole = group.empty((group.size, nbytes // 4 // group.size))
            whole.data[...] = 0
            action = _in_place(group, name, whole)
            times.setdefault(name, []).append((nbytes, _timed(runs, group, action)))
        for name in IN_LAYERS:
            action = _in_layer(group, name, np.zeros((group.size, nbytes // 4 // group.size), np.float32))
            times.setdefault(f"layers: {name}", []).append((nbytes, _timed(runs, group, action)))
        message = np.zeros(nbytes // 4, np.float32)
        for name, seconds in zip(SIDES, _exchange(runs, group, message), strict=True):
            times.setdefault(f"layers: {name}", []).append((nbytes, seconds))
        if group.rank == 0:
            action = lambda m=message: group.send(m, 1, async_op=True).wait()  # noqa: E731
        else:
            action = lambda: group.recv(src=0, async_op=True).wait()  # noqa: E731
        times.setdefault("send", []).append((nbytes, _timed(runs, group, action, wait=group.rank == 1)))
    return times


def _in_place(group: ProcessGroup, name: str, whole: Tensor) -> Callable[[], object]:
    """Calls the collective as a worker does, on `whole`; its row `rank` is this rank's part of the result or input."""
    x, part = whole.data, whole.data[group.rank : group.rank + 1]
    collective = getattr(group, name)
    if name == "all_gather":
        return lambda: collective(part, out=x, async_op=True).wait()
    if name == "reduce_scatter":
        return lambda: collective(x, out=part, async_op=True).wait()
    return lambda: collective(x, async_op=True).wait()


def _in_layer(group: ProcessGroup, name: str, whole: np.ndarray) -> Callable[[], object]:
    """Calls the collective as a layer does: on an array that is not shared, and without a place for the result."""
    given = whole[:1] if name == "all_gather" else whole
    collective = getattr(group, name)
    return lambda: collective(given)


def _exchange(runs: int, group: ProcessGroup, message: np.ndarray) -> tuple[float, float]:
    """Undisturbed times of sending a message, and of receiving one at the same time, from when it was there."""
    room, other = np.zeros_like(message), 1 - group.rank
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        group.barrier()
        start = time.perf_counter()
        sending = group.send(message, other, async_op=True)
        sent = time.perf_counter()
        group.recv(room, other, async_op=True).wait()
        received = time.perf_counter() - max(sent, group.matched)
        sending.wait()
        times[0].append(sent - start)
        times[1].append(received)
    return undisturbed(times[0]), undisturbed(times[1])


def alone_seconds(group: ProcessGroup) -> float:
    """Of a collective in a group of one rank, which moves nothing."""
    x = group.empty((16,))
    return _timed(200, group, lambda: group.all_reduce(x, async_op=True).wait())


def _timed(runs: int, group: ProcessGroup, action: Callable[[], object], wait: bool = False) -> float:
    """Undisturbed time of `action`, begun together; with `wait`, from when the message was there."""
    times = []
    for _ in range(runs):
        group.barrier()
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - (max(start, group.matched) if wait else start))
    return undisturbed(times)
