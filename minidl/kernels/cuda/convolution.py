"""Convolution of images (batch, channels, height, width): by implicit windows, as products of matrices by tiles.

A convolution is the product of its weight (o, c * kh * kw) with the matrix of all windows, (c * kh * kw, n * out_height
* out_width), and both gradients are such products too. The matrix of windows is never made: where a tile of it is
loaded into shared memory, its elements are read from the images (Chetlur et al. 2014, "cuDNN: Efficient Primitives for
Deep Learning", section 3). So there is no kernel here, but the places of windows for the one in tiled.py. Groups are a
batch of products.
"""

import functools
import math
from typing import NamedTuple

from minidl.kernels import shapes
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, permute, reshape
from minidl.kernels.cuda.target import cuda, unsigned
from minidl.kernels.cuda.tiled import Operand, matrices, multiply

__all__ = ["channel_sums", "conv2d", "conv2d_grad_input", "conv2d_grad_weight"]


# Operands


class Images(NamedTuple):
    """Of a group, how far its channels lie from the last one's; places: of a channel; image: from one to the next."""

    group: int
    places: int
    image: int


@functools.cache
def images(F):
    """Images as a matrix for each group: its lines are the channels, its depth all places of all images."""

    @cuda.jit(device=True)
    def start(where, matrix):
        return unsigned(matrix * unsigned(where.group))

    @cuda.jit(device=True)
    def line(where, channel):
        return unsigned(channel * unsigned(where.places)), 0, 0

    @cuda.jit(device=True)
    def deep(where, k):
        places = unsigned(where.places)
        return unsigned(k // places * unsigned(where.image) + k % places), 0, 0

    @cuda.jit(device=True)
    def read(array, where, place, y, x):
        return array[place]

    return start, line, deep, read


class Places(NamedTuple):
    """Where windows lie in images of `height` times `width`, of which one begins `image` elements after another.

    Window (i, j) of `windows_down` * `windows_across` in an image begins at row first_y + i * step_y, its elements lie
    apart_y rows apart; and so for columns. With spread_y > 1 the rows are meant to lie that far apart, with zeros
    between them. group: from the channels of a group to the next one's.
    """

    group: int
    image: int
    height: int
    width: int
    windows_down: int
    windows_across: int
    first_y: int
    first_x: int
    step_y: int
    step_x: int
    rows: int  # of a window
    columns: int
    apart_y: int
    apart_x: int
    spread_y: int
    spread_x: int


def window_functions(F, spread: bool):
    """The functions start, line, deep and read of windows, of which each is a line."""
    zero = F(0)

    @cuda.jit(device=True)
    def start(where, matrix):
        return unsigned(matrix * unsigned(where.group))

    @cuda.jit(device=True)
    def window(where, number):
        across = unsigned(where.windows_across)
        windows = unsigned(where.windows_down * across)
        image, inside = unsigned(number // windows), unsigned(number % windows)
        i, j = unsigned(inside // across), unsigned(inside % across)
        y, x = unsigned(where.first_y + i * where.step_y), unsigned(where.first_x + j * where.step_x)
        return unsigned(image * where.image), y, x

    @cuda.jit(device=True)
    def element(where, number):
        columns = unsigned(where.columns)
        elements = unsigned(where.rows * columns)
        channel, inside = unsigned(number // elements), unsigned(number % elements)
        i, j = unsigned(inside // columns), unsigned(inside % columns)
        y, x = unsigned(i * where.apart_y), unsigned(j * where.apart_x)
        return unsigned(channel * where.height * where.width), y, x

    @cuda.jit(device=True)
    def read(array, where, place, y, x):
        if spread:
            spread_y, spread_x = unsigned(where.spread_y), unsigned(where.spread_x)
            i, j = unsigned(y // spread_y), unsigned(x // spread_x)
            if unsigned(i * spread_y) != y or unsigned(j * spread_x) != x:
                return zero
            y, x = i, j
        # Places above the image or left of it are far below it or right of it where numbers have no sign
        if y < 0 or x < 0 or y >= unsigned(where.height) or x >= unsigned(where.width):
            return zero  # of the padding
        return array[unsigned(place + y * unsigned(where.width) + x)]

    return start, window, element, read


@functools.cache
def windows(F):
    """The windows of images: their lines are windows, their depth the elements of a window, channel by channel."""
    return window_functions(F, False)


@functools.cache
def spread_windows(F):
    """Windows of images between whose rows or columns zeros are meant to be."""
    return window_functions(F, True)


@functools.cache
def elements_of_windows(F):
    """The windows of images the other way: the lines are elements of windows, the depth runs over all windows."""
    start, window, element, read = window_functions(F, False)
    return start, element, window, read


@functools.cache
def ones(F):
    """A matrix of ones, which takes no memory."""
    one = F(1)

    @cuda.jit(device=True)
    def start(where, matrix):
        return 0

    @cuda.jit(device=True)
    def along(where, i):
        return 0, 0, 0

    @cuda.jit(device=True)
    def read(array, where, place, y, x):
        return one

    return start, along, along, read


def as_matrices(x: CudaArray, groups: int) -> Operand:
    """Contiguous images as (channels of a group, places of all images) for each group."""
    _, channels, height, width = x.shape
    places = height * width
    return Operand(x, images, Images(channels // groups * places, places, channels * places), True)


def places(x_shape, kernel, out_size, first, step, apart, groups: int, spread=(1, 1)) -> Places:
    _, channels, height, width = x_shape
    image = channels * height * width
    return Places(image // groups, image, height, width, *out_size, *first, *step, *kernel, *apart, *spread)


def one_per_group(weight: CudaArray, groups: int) -> Operand:
    """Contiguous weights (rows, ...) as a matrix of rows // groups for each group; its lines are those rows."""
    depth = math.prod(weight.shape[1:])
    return matrices(weight, depth, 1, (groups,), (weight.shape[0] // groups * depth,))


# The convolution and its gradients


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """x (n, c, height, width), weight (o, c / groups, kh, kw), bias (o,) or None -> (n, o, out_height, out_width)."""
    o, c, *kernel = weight.shape
    out_size = shapes.windows(x.shape[2:], kernel, stride, padding, dilation)
    out = CudaArray((x.shape[0], o, *out_size), x.dtype)
    where = places(x.shape, kernel, out_size, [-p for p in padding], stride, dilation, groups)
    sizes = groups, o // groups, x.shape[0] * math.prod(out_size), c * math.prod(kernel)
    steps = (o // groups * bias.strides[0], bias.strides[0], 0) if bias is not None else (0, 0, 0)
    all_windows = Operand(contiguous(x), windows, where)
    multiply(as_matrices(out, groups), one_per_group(contiguous(weight), groups), all_windows, sizes, bias, steps)
    return out


def conv2d_grad_input(grad, weight, x_shape, stride, padding, dilation, groups):
    """grad (n, o, out_height, out_width), weight (o, c / groups, kh, kw) -> the gradient of the input, of `x_shape`.

    An element of the input got into a window for each element of the kernel: its gradient is a window of `grad` that
    lies the other way round, where `grad` has zeros between its rows and columns if the stride is above 1.
    """
    o, c, *kernel = weight.shape
    out = CudaArray(tuple(x_shape), grad.dtype)
    by_group = reshape(weight, (groups, o // groups, c, math.prod(kernel)))
    turned = reshape(contiguous(permute(by_group, (0, 2, 1, 3))), (groups * c, o // groups, *kernel))
    where = places(grad.shape, kernel, x_shape[2:], padding, (1, 1), [-d for d in dilation], groups, stride)
    functions = windows if tuple(stride) == (1, 1) else spread_windows
    sizes = groups, c, x_shape[0] * math.prod(x_shape[2:]), o // groups * math.prod(kernel)
    all_windows = Operand(contiguous(grad), functions, where)
    multiply(as_matrices(out, groups), one_per_group(turned, groups), all_windows, sizes)
    return out


def conv2d_grad_weight(grad, x, weight_shape, stride, padding, dilation, groups):
    """grad (n, o, out_height, out_width), x (n, c, height, width) -> the gradient of the weight."""
    o, c, *kernel = weight_shape
    out = CudaArray(tuple(weight_shape), x.dtype)
    where = places(x.shape, kernel, grad.shape[2:], [-p for p in padding], stride, dilation, groups)
    sizes = groups, o // groups, c * math.prod(kernel), grad.shape[0] * math.prod(grad.shape[2:])
    all_elements = Operand(contiguous(x), elements_of_windows, where, True)
    multiply(one_per_group(out, groups), as_matrices(contiguous(grad), groups), all_elements, sizes)
    return out


def channel_sums(x):
    """x (n, c, height, width) -> (c,): the sum over all but the channels, as a product with ones."""
    n, channels, height, width = x.shape
    out = CudaArray((channels,), x.dtype)
    result = matrices(out, 1, 1, (1,), (0,))
    everything = as_matrices(contiguous(x), 1)
    multiply(result, everything, Operand(out, ones, ()), (1, channels, 1, n * height * width))
    return out
