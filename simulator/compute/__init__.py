"""What a kernel call takes on a device: from a datasheet (`Roofline`), or as measured on this machine (`Measured`).

Calls come from running a model on meta, where each says what it is: its kind, shapes, FLOPs and bytes. A device puts a
price on each of them, and that is all that the simulator knows of computing.
"""

from __future__ import annotations

from typing import Protocol

from minidl.kernels.meta import KernelCall
from simulator.compute.measured import Measured
from simulator.compute.roofline import Roofline


class Compute(Protocol):
    """What prices kernel calls. One object's prices never change: another device is another object.

    instruction_seconds: added to every instruction. dispatch_seconds: what the host takes to launch a kernel, for which
    a device waits whose kernels are shorter. device: of minidl, "cpu" or "cuda", whose calls are priced.
    """

    instruction_seconds: float
    dispatch_seconds: float
    device: str

    def flops_per_byte(self, dtype: str) -> float:
        """Arithmetic of products of `dtype` in the time in which a byte is moved."""
        ...

    def price(self, call: KernelCall) -> tuple[float, float]:
        """Seconds of `call`, and by what factor it is slower while all cores of a shared machine are busy."""
        ...


__all__ = ["Compute", "Measured", "Roofline"]
