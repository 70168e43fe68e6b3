"""What the kernels of a block take between the collectives inside it: found once for all predictions that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minidl.parallel.block_profile import Call
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.remembered import Remembered
from simulator.compute import Compute
from simulator.stacks import Stack


class Stretch(NamedTuple):
    """Kernels in a row: seconds, seconds while all cores are busy, and the collective that follows, None at the end."""

    seconds: float
    slowed: float
    collective: CollectiveCall | None


class Stretches(NamedTuple):
    """Those of a sequence of calls. launching: how long the host takes to launch all of them but views."""

    in_order: tuple[Stretch, ...]
    launching: float


_known = Remembered(1024)


def stretches_of(calls: Sequence[Call], compute: Compute, stack: Stack, precision: str) -> Stretches:
    """The calls as `stack` makes them in training in `precision`, on a device that prices kernels by `compute`.

    Neither of the two must change: what was found once is not looked at again.
    """
    return _known.get_for((calls, compute, stack), precision, lambda: _priced(calls, compute, stack, precision))


def _priced(calls: Sequence[Call], compute: Compute, stack: Stack, precision: str) -> Stretches:
    found, busy, slowed, launches = [], 0.0, 0.0, 0
    for call in stack.rewrite(calls, precision):
        if isinstance(call, CollectiveCall):
            found.append(Stretch(busy, slowed, call))
            busy = slowed = 0.0
            launches += 1
        else:
            seconds, contention = compute.price(call)
            seconds *= stack.attention_grad_time if call.name == "attention_grad" else 1.0
            busy, slowed = busy + seconds, slowed + seconds * contention
            launches += call.kind != "view"
    launch_seconds = max(stack.dispatch_us * 1e-6, compute.dispatch_seconds) if stack.dispatch_us else 0.0
    return Stretches((*found, Stretch(busy, slowed, None)), launches * launch_seconds)
