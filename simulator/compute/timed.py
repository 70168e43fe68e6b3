"""How the times of a kernel are kept: under which name, by what size, and of which algorithm of the device."""

from __future__ import annotations

from dataclasses import replace

from minidl.kernels.algorithms import CONVOLUTIONS
from minidl.kernels.meta import KernelCall
from simulator.compute.convolution import Convolution, convolution

ATTENTION = ("attention", "attention_grad")  # in tiles: products, but timed by themselves


def as_computed(call: KernelCall, device: str) -> KernelCall:
    """The call as `device` computes it: meta notes the CPU's algorithm, for which it may have no kernels."""
    there = not call.algorithm or call.algorithm in CONVOLUTIONS[device]
    return call if there else replace(call, algorithm="windows")


def timed_by(call: KernelCall) -> Convolution | int | None:
    """The size by which the times of a call are kept; None for a matrix product, whose shape tells its time."""
    if call.name in ATTENTION:
        return call.flops
    if call.kind == "product":
        return None
    return convolution(call) or call.bytes_read + call.bytes_written


def timed_as(call: KernelCall) -> str:
    """The name under which a call's times are kept, and its algorithm if there are several."""
    return f"{call.name}, {call.algorithm}" if call.algorithm else call.name
