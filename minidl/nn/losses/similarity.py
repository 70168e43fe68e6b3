"""Losses of embeddings: what belongs together comes close, what does not is pushed apart."""

import math

import numpy as np

from minidl import ops
from minidl.nn.losses.loss import Loss, check_range
from minidl.ops.promotion import pair
from minidl.tensor import Tensor

COSINE_EPS = 1e-12  # added to squared norms by PyTorch's cosine_embedding_loss


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (|x1| |x2|) along `dim` of the shape to which x1 and x2 broadcast; norms below `eps` taken as `eps`."""
    x1, x2 = pair("cosine_similarity", x1, x2)
    if x1.shape != x2.shape:  # broadcast before the norms are taken: `dim` may be one that is repeated
        shape = np.broadcast_shapes(x1.shape, x2.shape)
        x1, x2 = ops.expand(x1, shape), ops.expand(x2, shape)
    return (_unit(x1, dim, eps) * _unit(x2, dim, eps)).sum(dim)


def _unit(x: Tensor, dim: int, eps: float) -> Tensor:
    square = (x * x).sum(dim, keepdim=True)
    return x / ops.sqrt(ops.clamp(square, min=eps * eps))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension, which broadcast; p > 0 may be math.inf.

    Where the distance is 0 its gradient is 0. ValueError for another p.
    """
    if not p > 0:
        raise ValueError(f"pairwise_distance: p={p}, it must be above 0")
    difference = ops.abs(x1 - x2 + eps)
    if p == math.inf:
        return difference.amax(-1)
    if p == 1:
        return difference.sum(-1)
    total = (difference * difference if p == 2 else difference**p).sum(-1)
    is_zero = total == 0
    return ops.where(is_zero, 0.0, ops.where(is_zero, 1.0, total) ** (1 / p))


class CosineEmbeddingLoss(Loss):
    """1 - cos(x1, x2) where the target is 1, max(0, cos(x1, x2) - margin) where it is -1.

    x1 and x2 (batch, width), target (batch,); or x1 and x2 (width,), target a scalar. Weight: one a pair.
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        check_range(self, "margin", margin, -1, 1)
        self.margin = margin

    def elements_and_weight(self, x1, x2, target):
        if x1.shape != x2.shape or x1.ndim not in (1, 2) or target.shape != x1.shape[:-1]:
            raise ValueError(
                f"CosineEmbeddingLoss needs two inputs (batch, width) and a target (batch,), "
                f"not {x1.shape}, {x2.shape} and {target.shape}"
            )
        squares = ((x1 * x1).sum(-1) + COSINE_EPS) * ((x2 * x2).sum(-1) + COSINE_EPS)
        cosine = (x1 * x2).sum(-1) / ops.sqrt(squares)
        apart = ops.clamp(cosine - self.margin, min=0)
        either = ops.where(target == 1, 1 - cosine, ops.where(target == -1, apart, 0.0))
        return either, float(target.numel())


class TripletMarginLoss(Loss):
    """max(0, |anchor - positive| - |anchor - negative| + margin), by the p-norm (Balntas et al. 2016).

    All three (batch, width). swap: take the distance of positive and negative where it is smaller than the anchor's.
    Weight: one a triplet.
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, *, reduction: str = "mean"
    ):
        super().__init__(reduction=reduction)
        for name, value in (("margin", margin), ("p", p)):
            if not value > 0:
                raise ValueError(f"TripletMarginLoss: {name}={value}, it must be above 0")
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def elements_and_weight(self, anchor, positive, negative):
        if not anchor.shape == positive.shape == negative.shape or anchor.ndim < 1:
            raise ValueError(
                "TripletMarginLoss needs anchor, positive and negative of one shape (batch, width), "
                f"not {anchor.shape}, {positive.shape} and {negative.shape}"
            )
        near = pairwise_distance(anchor, positive, self.p, self.eps)
        far = pairwise_distance(anchor, negative, self.p, self.eps)
        if self.swap:
            far = ops.minimum(far, pairwise_distance(positive, negative, self.p, self.eps))
        return ops.clamp(near - far + self.margin, min=0), float(far.numel())
