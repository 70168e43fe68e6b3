"""The transforms of winograd.py, compiled: 16 channels of a tile at a time, first along its columns, then its rows.

All take the tile rows from `first` to before `last`, counted through all images; `tiles` is how many an image has,
(vertical, horizontal). A matrix of 36 rows holds a product's operand in each: that of a tile's element (i, j) in row
6 i + j, where tile number t of these, counted from 0, has its channels from t * channels on.
"""

import numpy as np

from minidl.kernels.cpu.fast.compiling import njit
from minidl.kernels.cpu.fast.vectors import WIDTH, fill, load, store

ZERO, TWO, FOUR, FIVE, EIGHT = (np.float32(n) for n in (0, 2, 4, 5, 8))


@njit()
def input_matrix(a, b, c, d, e, f):
    """B^T (a, b, c, d, e, f)."""
    two, four, five = fill(TWO), fill(FOUR), fill(FIVE)
    even, odd = e - four * c, d - four * b
    even_half, odd_half = e - c, two * (d - b)
    return (
        four * a - five * c + e, even + odd, even - odd, even_half + odd_half, even_half - odd_half,
        four * b - five * d + f,
    )  # fmt: skip


@njit()
def output_matrix(a, b, c, d, e, f):
    """A^T (a, b, c, d, e, f)."""
    two, four, eight = fill(TWO), fill(FOUR), fill(EIGHT)
    p, q, r, s = b + c, b - c, d + e, d - e
    return a + p + r, q + two * s, p + four * r, q + eight * s + f


@njit()
def gradient_matrix(a, b, c, d):
    """A (a, b, c, d)."""
    two, four, eight = fill(TWO), fill(FOUR), fill(EIGHT)
    even, odd = a + c, b + d
    even_double, odd_double = a + four * c, two * b + eight * d
    return a, even + odd, even - odd, even_double + odd_double, even_double - odd_double, d


@njit()
def transform_input(x, padding, tiles, first, last, out):
    """B^T d B of each tile d of 6 x 6; x (n, height, width, c), out (36, tiles * c and more)."""
    _, height, width, channels = x.shape
    half = np.empty((36, WIDTH), np.float32)
    step, none = width * channels, fill(ZERO)
    for row in range(first, last):
        top = row % tiles[0] * 4 - padding[0]
        image = row // tiles[0] * height
        for j in range(tiles[1]):
            target = ((row - first) * tiles[1] + j) * channels
            for channel in range(0, channels, WIDTH):
                for s in range(6):
                    column = 4 * j - padding[1] + s
                    inside = 0 <= column < width
                    at = ((image + top) * width + column) * channels + channel
                    results = input_matrix(
                        load(x, at) if inside and 0 <= top < height else none,
                        load(x, at + step) if inside and 0 <= top + 1 < height else none,
                        load(x, at + 2 * step) if inside and 0 <= top + 2 < height else none,
                        load(x, at + 3 * step) if inside and 0 <= top + 3 < height else none,
                        load(x, at + 4 * step) if inside and 0 <= top + 4 < height else none,
                        load(x, at + 5 * step) if inside and 0 <= top + 5 < height else none,
                    )
                    for i in range(6):
                        store(half, (6 * i + s) * WIDTH, results[i])
                for i in range(6):
                    results = input_matrix(*_six(half, 6 * i * WIDTH, WIDTH))
                    for s in range(6):
                        store(out, (6 * i + s) * out.shape[1] + target + channel, results[s])


@njit()
def _six(x, at, step):
    return (
        load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step), load(x, at + 4 * step),
        load(x, at + 5 * step),
    )  # fmt: skip


@njit()
def transform_output(products, bias, tiles, first, last, y):
    """A^T m A + bias of each tile m of 6 x 6, of which 4 x 4 are left; y (n, out_height, out_width, o)."""
    _, height, width, channels = y.shape
    half = np.empty((24, WIDTH), np.float32)
    step = products.shape[1]
    for row in range(first, last):
        top = row % tiles[0] * 4
        image = row // tiles[0] * height
        for j in range(tiles[1]):
            source = ((row - first) * tiles[1] + j) * channels
            for channel in range(0, channels, WIDTH):
                for s in range(6):
                    results = output_matrix(*_six(products, s * step + source + channel, 6 * step))
                    for i in range(4):
                        store(half, (6 * i + s) * WIDTH, results[i])
                offset = load(bias, channel)
                for i in range(min(4, height - top)):
                    results = output_matrix(*_six(half, 6 * i * WIDTH, WIDTH))
                    for s in range(min(4, width - 4 * j)):
                        at = ((image + top + i) * width + 4 * j + s) * channels + channel
                        store(y, at, results[s] + offset)


@njit()
def transform_gradient(grad, tiles, first, last, out):
    """A g A^T of each tile g of 4 x 4; grad (n, out_height, out_width, o), out (36, tiles * o and more)."""
    _, height, width, channels = grad.shape
    half = np.empty((24, WIDTH), np.float32)
    step, none = width * channels, fill(ZERO)
    for row in range(first, last):
        top = row % tiles[0] * 4
        image = row // tiles[0] * height
        for j in range(tiles[1]):
            target = ((row - first) * tiles[1] + j) * channels
            for channel in range(0, channels, WIDTH):
                for s in range(4):
                    inside = 4 * j + s < width
                    at = ((image + top) * width + 4 * j + s) * channels + channel
                    results = gradient_matrix(
                        load(grad, at) if inside else none,
                        load(grad, at + step) if inside and top + 1 < height else none,
                        load(grad, at + 2 * step) if inside and top + 2 < height else none,
                        load(grad, at + 3 * step) if inside and top + 3 < height else none,
                    )
                    for i in range(6):
                        store(half, (4 * i + s) * WIDTH, results[i])
                for i in range(6):
                    at = 4 * i * WIDTH
                    results = gradient_matrix(
                        load(half, at), load(half, at + WIDTH), load(half, at + 2 * WIDTH), load(half, at + 3 * WIDTH)
                    )
                    for s in range(6):
                        store(out, (6 * i + s) * out.shape[1] + target + channel, results[s])
