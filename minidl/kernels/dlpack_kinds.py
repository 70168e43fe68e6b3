"""Kinds of devices, by the numbers that DLPack gives them."""

CPU, CUDA, PINNED = 1, 2, 3  # PINNED: memory of the host that a GPU may copy
