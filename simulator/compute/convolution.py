"""What a convolution does, by its algorithm: matrix products, and what it takes beyond them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from minidl.kernels.meta import KernelCall

RUN_BYTES = 128  # two cache lines: with it, time is proportional to `rest` for 3 to 192 bytes a run


class Convolution(NamedTuple):
    """What a convolution does by its algorithm.

    product: (batch, m, n, k) of its matrix products. rest: what the time beyond them is in proportion to, or all time
    where there are none: of "windows", the bytes copied into a matrix, each run of them that lies together counting
    RUN_BYTES more; of "winograd", those of transformed tiles; of "direct", FLOPs.
    """

    product: tuple[int, int, int, int]
    rest: int


def convolution(call: KernelCall) -> Convolution | None:
    """What a convolution's call does; None for other kernels."""
    if call.kind != "convolution":
        return None
    first, second, *_, result = call.shapes
    # conv2d: input, weight, …, output; conv2d_grad_input, a convolution of the gradient: gradient, weight, result;
    # conv2d_grad_weight: gradient, input, gradient of the weight
    images, weight, out = (second, result, first) if call.name == "conv2d_grad_weight" else (first, second, result)
    (batch, n, *places), (_, channels, *size), (*_, height, width) = out, images, weight
    stride, *_, groups = call.options
    spread = call.name == "conv2d_grad_input" and stride != (1, 1)
    if call.algorithm == "winograd":
        tiles = batch * math.prod(math.ceil(places / 4) for places in places)
        return Convolution((36, tiles, n, channels), 4 * 36 * tiles * (n + channels))
    if call.algorithm == "direct":  # zeros between the elements of the gradient are multiplied like them
        return Convolution((0, 0, 0, 0), call.flops * math.prod(stride) if spread else call.flops)
    if spread:
        places = size  # windows of the result are made at the places of the gradient, and added where they belong
    m, run = batch * math.prod(places), width * channels
    runs = height if groups == 1 else height * width * groups  # only a whole row of a window lies together
    rest = m * (4 * height * run + RUN_BYTES * runs)
    return Convolution((groups, m, n // groups, height * run // groups), rest)


def implicit_product(call: KernelCall) -> tuple[int, int, int, int]:
    """(batch, m, n, k) of a convolution as a product of its windows, that of the weight's gradient as its own."""
    batch, m, n, k = convolution(replace(call, algorithm="windows")).product
    return (batch, n, k, m) if call.name == "conv2d_grad_weight" else (batch, m, n, k)


def is_small_window(call: KernelCall) -> bool:
    """Whether it is one of 3 x 3 or 5 x 5 at stride 1, of all channels, which has an algorithm with fewer products."""
    stride, _, dilation, groups = call.options
    weight = call.shapes[-1] if call.name == "conv2d_grad_weight" else call.shapes[1]
    return tuple(weight[2:]) in ((3, 3), (5, 5)) and stride == dilation == (1, 1) and groups == 1
