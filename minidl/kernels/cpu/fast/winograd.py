"""Convolution with kernels of 3 x 3 by a quarter of the products: Winograd's minimal filtering F(4 x 4, 3 x 3).

Lavin and Gray 2015, "Fast algorithms for convolutional neural networks", sections 4.1 and 4.3. Four neighbouring
results of a kernel g of 3 over six numbers d need 12 products directly and 6 this way, the other factors being
constants:

    y = A^T ((G g) * (B^T d))

In two dimensions Y = A^T ((G g G^T) * (B^T d B)) A: a tile of 4 x 4 results takes 36 products instead of 144. Summing
over channels turns each of the 36 into a matrix product, (tiles, c) by (c, o), where the time goes. The transposed
formula gives the gradient of the weight: G^T ((A y A^T) * (B^T d B)) G, the product summed over the tiles.

The price is accuracy, as the constants enlarge rounding errors: in float32 they are 2e-6 of the results' standard
deviation on average and 6e-5 at most, ten to twenty times those of direct summation. So float64 never goes this way.
And a NaN or an infinity in the input makes a NaN of every result of the tiles that see it, not only of its own windows.
"""

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.cpu.fast import winograd_transforms as transforms
from minidl.kernels.cpu.fast.threads import split, split_sum

G = np.array([
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
], np.float32)  # fmt: skip
BOTH = np.kron(G, G)  # (36, 9): G g G^T of a flattened g

TILES = 96  # in a block: enough for the matrix products to be fast, few enough to stay in the cache
APART = 64  # elements between the 36 matrices: at a power of two bytes they would fight for the same lines of the cache


def _tiles(height, width):
    """How many tiles cover an image of results, (vertical, horizontal), and how many rows of them make a block."""
    rows, columns = -(-height // 4), -(-width // 4)
    return (rows, columns), max(1, TILES // columns)


class _Block:
    """Memory for the 36 matrices (tiles, channels) of some tiles."""

    def __init__(self, tiles, channels):
        self.memory, self.channels = np.empty((36, tiles * channels + APART), np.float32), channels

    def of(self, tiles):
        """(36, tiles, channels)."""
        return self.memory[:, : tiles * self.channels].reshape(36, tiles, self.channels)


def conv2d(x, weight, bias, padding):
    """x (n, height, width, c), weight (o, c, 3, 3), bias (o,) or None -> (n, out_height, out_width, o)."""
    n, c, o = len(x), x.shape[3], len(weight)
    out_size = shapes.windows(x.shape[1:3], (3, 3), (1, 1), padding)
    tiles, step = _tiles(*out_size)
    kernels = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(9, c * o)
    kernels = (BOTH @ kernels).reshape(36, c, o)
    bias = np.zeros(o, x.dtype) if bias is None else np.ascontiguousarray(bias)
    y = np.empty((n, *out_size, o), x.dtype)

    def convolve(rows):
        inputs, products = _Block(step * tiles[1], c), _Block(step * tiles[1], o)
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            count = (last - first) * tiles[1]
            transforms.transform_input(x, padding, tiles, first, last, inputs.memory)
            np.matmul(inputs.of(count), kernels, out=products.of(count))
            transforms.transform_output(products.memory, bias, tiles, first, last, y)

    split(n * tiles[0], convolve)
    return y


def conv2d_grad_weight(grad, x, padding):
    """grad (n, out_height, out_width, o), x (n, height, width, c) -> the gradient of the weight, (o, c, 3, 3)."""
    (n, *out_size, o), c = grad.shape, x.shape[3]
    tiles, step = _tiles(*out_size)

    def over(rows):
        total, products = np.zeros((2, 36, o, c), x.dtype)
        inputs, gradients = _Block(step * tiles[1], c), _Block(step * tiles[1], o)
        for first in range(rows.start, rows.stop, step):
            last = min(first + step, rows.stop)
            count = (last - first) * tiles[1]
            transforms.transform_input(x, padding, tiles, first, last, inputs.memory)
            transforms.transform_gradient(grad, tiles, first, last, gradients.memory)
            np.matmul(gradients.of(count).swapaxes(1, 2), inputs.of(count), out=products)
            total += products
        return total

    total = split_sum(n * tiles[0], over)
    weight = (BOTH.T @ total.reshape(36, o * c)).reshape(3, 3, o, c)
    return np.ascontiguousarray(weight.transpose(2, 3, 0, 1))
