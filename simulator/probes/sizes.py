"""In which sizes products and kernels are timed, on a core and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.kernels.algorithms import COMPILED_FROM

FEW = COMPILED_FROM - 1  # elements: as many as NumPy still works on, before compiled code takes over at once
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Sizes:
    """In which sizes products and kernels are timed; of a kind of cases that has none nothing is.

    gemm: along m, n and k of products. dense: (width, batch), also of `activated`. images: (channels, width, places a
    side, batch). sequences: (hidden, sequence, batch). attended: (heads, sequence, width, batch). mixed: (hidden,
    sequence, batch). normalized: (width, places a side, batch). recurrent: (width,
    steps, batch). coders: (width, batch). updates: elements.
    """

    gemm: tuple[int, ...]
    dense: Shapes = ()
    activated: Shapes = ()
    images: Shapes = ()
    sequences: Shapes = ()
    attended: Shapes = ()
    mixed: Shapes = ()
    normalized: Shapes = ()
    recurrent: Shapes = ()
    coders: Shapes = ()
    updates: tuple[int, ...] = ()


DENSE = ((32, 8), (64, 32), (256, 64), (512, FEW // 512), (512, FEW // 512 + 1), (1024, 256), (1024, 1024))
WIDE = ((32, 8), (256, 64), (1024, 256), (2048, 2048), (4096, 4096))
ON_CPU = Sizes(
    gemm=(4, 16, 64, 256, 1024),
    dense=DENSE,
    activated=DENSE,
    images=(  # convolutions in each of the ways in which they are computed
        (1, 8, 8, 16), (1, 16, 8, FEW // 1024), (1, 16, 8, FEW // 1024 + 1), (16, 32, 16, 32),
        (3, 20, 32, 16), (64, 64, 8, 64), (3, 16, 32, 24), (1, 32, 28, 100), (3, 32, 32, 64),
    ),
    sequences=((32, 16, 4), (64, 64, 8), (128, 128, 8)),
    attended=((4, 32, 16, 2), (8, 64, 16, 4), (8, 128, 32, 4)),
    mixed=((32, 16, 4), (64, 64, 8), (128, 128, 4)),
    normalized=((16, 8, 16), (32, 16, 32), (64, 32, 16)),
    recurrent=((8, 8, 16), (64, 8, 64), (128, 28, 128)),
    coders=((64, 16), (256, 64), (512, 256)),
    updates=(1 << 8, 1 << 12, 1 << 15, 1 << 16, 1 << 19, 1 << 21),  # compiled code for large ones
)  # fmt: skip
ON_GPU = Sizes(
    gemm=(4, 16, 64, 256, 1024, 4096),
    dense=WIDE,
    activated=WIDE,
    images=((1, 8, 8, 16), (3, 32, 32, 64), (16, 32, 16, 64), (64, 64, 32, 64), (64, 128, 56, 64), (256, 256, 14, 128)),
    sequences=((32, 16, 4), (128, 128, 8), (256, 512, 16)),
    attended=((4, 32, 16, 2), (8, 128, 32, 8), (16, 512, 64, 4)),
    mixed=((32, 16, 4), (128, 128, 8), (512, 256, 8)),
    normalized=((16, 8, 16), (64, 32, 64), (64, 56, 64)),
    recurrent=((8, 8, 16), (128, 28, 128), (512, 32, 256)),
    coders=((64, 16), (512, 256), (2048, 1024)),
    updates=(1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 24),
)
