"""The loops of direct.py, compiled: 16 channels of the result at a time, and TILE such sums at once to keep the adders
busy: where a register holds 8 numbers they take 12 of the 16 registers, and the factors fit into the others.

x: padded images in any order of memory. steps: how many of its elements lie between one image and the next, one window
and the next below, the next beside, and one group of channels and the next. offsets: of a window's elements from its
first.
"""

from minidl.kernels.cpu.fast.compiling import njit
from minidl.kernels.cpu.fast.vectors import WIDTH, load, repeat, store

TILE = 6


@njit()
def convolve(x, steps, offsets, weight, bias, y, of_group):
    """weight (o / 16, offsets, 16), bias (o,), y (n, out_height, out_width, o), of_group: channels of it in a group."""
    n, height, width, channels = y.shape
    last, beside = width - 1, steps[2]
    for image in range(n):
        for i in range(height):
            start, line = image * steps[0] + i * steps[1], (image * height + i) * width
            for j in range(0, width, TILE):  # at the end of a line the last window is taken again
                j1, j2, j3 = min(j + 1, last), min(j + 2, last), min(j + 3, last)
                j4, j5 = min(j + 4, last), min(j + 5, last)
                x0, x1, x2 = start + j * beside, start + j1 * beside, start + j2 * beside
                x3, x4, x5 = start + j3 * beside, start + j4 * beside, start + j5 * beside
                for channel in range(0, channels, WIDTH):
                    y0 = y1 = y2 = y3 = y4 = y5 = load(bias, channel)
                    group = channel // of_group * steps[3]
                    for k in range(len(offsets)):
                        w, at = load(weight, channel * len(offsets) + k * WIDTH), group + offsets[k]
                        y0 = y0 + repeat(x, x0 + at) * w
                        y1 = y1 + repeat(x, x1 + at) * w
                        y2 = y2 + repeat(x, x2 + at) * w
                        y3 = y3 + repeat(x, x3 + at) * w
                        y4 = y4 + repeat(x, x4 + at) * w
                        y5 = y5 + repeat(x, x5 + at) * w
                    store(y, (line + j) * channels + channel, y0)
                    store(y, (line + j1) * channels + channel, y1)
                    store(y, (line + j2) * channels + channel, y2)
                    store(y, (line + j3) * channels + channel, y3)
                    store(y, (line + j4) * channels + channel, y4)
                    store(y, (line + j5) * channels + channel, y5)


@njit()
def add_weight_gradient(x, steps, offsets, grad, total, of_group):
    """total (o / 16, offsets, 16) grows by the gradient of the weight, grad (n, out_height, out_width, o).

    The number of offsets is divisible by TILE.
    """
    n, height, width, channels = grad.shape
    for image in range(n):
        for i in range(height):
            start, line = image * steps[0] + i * steps[1], (image * height + i) * width
            for channel in range(0, channels, WIDTH):
                first = start + channel // of_group * steps[3]
                for k in range(0, len(offsets), TILE):
                    x0, x1, x2 = offsets[k], offsets[k + 1], offsets[k + 2]
                    x3, x4, x5 = offsets[k + 3], offsets[k + 4], offsets[k + 5]
                    at = channel * len(offsets) + k * WIDTH
                    t0, t1, t2 = load(total, at), load(total, at + 16), load(total, at + 32)
                    t3, t4, t5 = load(total, at + 48), load(total, at + 64), load(total, at + 80)
                    for j in range(width):
                        g, place = load(grad, (line + j) * channels + channel), first + j * steps[2]
                        t0 = t0 + repeat(x, place + x0) * g
                        t1 = t1 + repeat(x, place + x1) * g
                        t2 = t2 + repeat(x, place + x2) * g
                        t3 = t3 + repeat(x, place + x3) * g
                        t4 = t4 + repeat(x, place + x4) * g
                        t5 = t5 + repeat(x, place + x5) * g
                    store(total, at, t0)
                    store(total, at + 16, t1)
                    store(total, at + 32, t2)
                    store(total, at + 48, t3)
                    store(total, at + 64, t4)
                    store(total, at + 80, t5)


@njit()
def convolve_depthwise(x, steps, offsets, weight, bias, y):
    """Each channel by itself: weight (1, offsets, c), bias (c,), y (n, out_height, out_width, c); x: channels last."""
    n, height, width, channels = y.shape
    for image in range(n):
        for i in range(height):
            start, line = image * steps[0] + i * steps[1], (image * height + i) * width
            for j in range(width):
                for channel in range(0, channels, WIDTH):
                    first, total = start + j * steps[2] + channel, load(bias, channel)
                    for k in range(len(offsets)):
                        total = total + load(x, first + offsets[k]) * load(weight, k * channels + channel)
                    store(y, (line + j) * channels + channel, total)


@njit()
def add_depthwise_gradient(x, steps, offsets, grad, total):
    """total (1, offsets, c) grows by the gradient of the weight, grad (n, out_height, out_width, c)."""
    n, height, width, channels = grad.shape
    for image in range(n):
        for i in range(height):
            start, line = image * steps[0] + i * steps[1], (image * height + i) * width
            for channel in range(0, channels, WIDTH):
                for k in range(len(offsets)):
                    first, at = start + offsets[k] + channel, k * channels + channel
                    t = load(total, at)
                    for j in range(width):
                        t = t + load(x, first + j * steps[2]) * load(grad, (line + j) * channels + channel)
                    store(total, at, t)
