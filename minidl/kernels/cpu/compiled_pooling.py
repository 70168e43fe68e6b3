"""The kernels of pooling.py compiled by Numba, for float32."""

import numpy as np
from numba import njit

from minidl.kernels.cpu.compiled import FLAGS, OPTIONS


@njit(fastmath=FLAGS, **OPTIONS)
def max_pool2d(x, kernel, stride, y, which):
    """Padded x (n, height, width, c), y and which (n, out_height, out_width, c), which of uint8."""
    n, out_height, out_width, _ = y.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                best, place = y[b, i, j], which[b, i, j]
                best[:] = x[b, i * stride[0], j * stride[1]]
                place[:] = 0
                for k in range(1, kernel[0] * kernel[1]):
                    row = x[b, i * stride[0] + k // kernel[1], j * stride[1] + k % kernel[1]]
                    for c in range(len(row)):
                        better = (row[c] > best[c]) | (row[c] != row[c])
                        best[c] = row[c] if better else best[c]
                        place[c] = np.uint8(k) if better else place[c]


@njit(fastmath=FLAGS, **OPTIONS)
def max_pool2d_grad(grad, which, kernel, stride, out):
    """out (n, height, width, c), padded, of zeros; the others as above."""
    n, out_height, out_width, _ = grad.shape
    for b in range(n):
        for i in range(out_height):
            for j in range(out_width):
                g, place = grad[b, i, j], which[b, i, j]
                for k in range(kernel[0] * kernel[1]):
                    row = out[b, i * stride[0] + k // kernel[1], j * stride[1] + k % kernel[1]]
                    for c in range(len(row)):
                        row[c] += g[c] if place[c] == k else np.float32(0)
