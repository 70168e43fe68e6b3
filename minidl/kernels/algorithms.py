"""How a device computes what may be computed in several ways: from shapes and dtypes alone.

The kernels of a device go by what stands here, and those of meta write it down, so that what is priced is what is run,
on a device too that is not there.
"""

import math

import numpy as np

COMPILED_FROM = 1 << 16  # elements: below, the import of Numba is not worth its 0.2 seconds
LARGEST_WINDOW = 1024  # elements: the weights of longer ones leave the cache, and the BLAS is faster
# Bytes of a head up to which the ops attend in tiles: none on the CPU. "flash" is the simulator's, of kernels as those
# of FlashAttention (Dao 2023), which are there for any head.
WIDEST_IN_TILES = {"cpu": 0, "cuda": 512, "flash": 1 << 20}
CONVOLUTIONS = {"cpu": ("winograd", "direct", "windows"), "cuda": ("windows",)}  # ways of which a device has kernels


def is_compiled(size: int, dtype, least: int = COMPILED_FROM) -> bool:
    """Whether arrays of `size` elements are worked through by compiled code: from `least` on, in float32."""
    return dtype == np.float32 and size >= least


def convolution(x_shape, dtype, weight_shape, out_size, stride, dilation, groups) -> str:
    """The CPU's fastest algorithm that applies to a convolution of x (n, c, height, width) to images of `out_size`.

    "winograd" takes half the time of "windows" wherever it applies, unless many of its tiles of 4 x 4 stick out.
    "direct", by the times of both for 1 to 128 channels and images of 2 to 32 places a side (AVX2, one thread): it
    takes a seventh of the time of "windows" depthwise; else, where a line of results is at least 4 long, 0.3 to 0.6 of
    it for few channels and 0.6 to 1 for many. In shorter lines most of the sums taken at once are taken twice: 1.3 to
    2.2 at a length of 2. Kernels of 1 x 1 are one product of the images as they lie: 1 to 1.4.

    The sizes of one image decide. Only a batch too small to be worth loading Numba goes through "windows" in any case.
    """
    if not is_compiled(math.prod(x_shape), dtype):
        return "windows"
    o, c, *kernel = weight_shape
    height, width = out_size
    if kernel == [3, 3] and stride == dilation == (1, 1) and groups == 1:
        tiles = -(-height // 4) * -(-width // 4)
        few = 36 * tiles <= 9 * height * width / 2  # products, though tiles stick out
        if few and c % 16 == o % 16 == 0:
            return "winograd"
    if math.prod(kernel) * c > LARGEST_WINDOW:
        return "windows"
    if is_depthwise(weight_shape, groups):
        applies = o % 16 == 0
    else:
        applies = o // groups % 16 == 0 and width >= 4 and kernel != [1, 1]
    return "direct" if applies else "windows"


def convolution_grad_input(grad_shape, dtype, weight_shape, x_shape, stride, padding, dilation, groups) -> str:
    """The algorithm of the gradient of a convolution's input: that of the convolution as which it is computed."""
    turned = turned_convolution(weight_shape, x_shape, stride, padding, dilation, groups)
    if turned is None:
        return "windows"
    size, turned_shape, _ = turned
    return convolution((*grad_shape[:2], *size), dtype, turned_shape, x_shape[2:], (1, 1), dilation, groups)


def turned_convolution(weight_shape, x_shape, stride, padding, dilation, groups):
    """The gradient of the input as a convolution of the gradient, with the kernel turned round; None if it is not.

    -> (size of the gradient's images with zeros between their elements, shape of the turned weight, padding).
    """
    (o, _, *kernel), (_, channels, *size) = weight_shape, x_shape
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    around = tuple(r - p for r, p in zip(reach, padding, strict=True))
    if min(around) < 0 or not (stride == (1, 1) or is_depthwise(weight_shape, groups)):
        return None
    spread = tuple(n + 2 * p - r for n, p, r in zip(size, padding, reach, strict=True))
    return spread, (channels, o // groups, *kernel), around


def is_depthwise(weight_shape, groups: int) -> bool:
    """Whether each channel of the result comes from one channel of the input, its own."""
    return weight_shape[0] == groups and weight_shape[1] == 1
