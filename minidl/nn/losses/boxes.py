"""Losses of boxes (..., 4), given by their corners (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2.

Names and formulas are those of torchvision.ops.
"""

from minidl import ops
from minidl.nn.losses.loss import Loss, check_same_shape
from minidl.tensor import Tensor


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of each of boxes1 (n, 4) with each of boxes2 (m, 4) -> (n, m)."""
    _check_pairs("box_iou", boxes1, boxes2)
    intersection, union, _ = _areas(boxes1.unsqueeze(1), boxes2)
    return intersection / union


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU less the share of the smallest enclosing box that neither covers, of each pair: (n, 4), (m, 4) -> (n, m).

    From 1 for equal boxes to -1 for ever more distant ones (Rezatofighi et al. 2019, algorithm 1).
    """
    _check_pairs("generalized_box_iou", boxes1, boxes2)
    intersection, union, hull = _areas(boxes1.unsqueeze(1), boxes2)
    return intersection / union - (hull - union) / hull


class IoULoss(Loss):
    """1 - IoU of each box with its target's. Weight: one a box. eps keeps empty boxes from a division by 0."""

    def __init__(self, *, reduction: str = "mean", eps: float = 1e-7):
        super().__init__(reduction=reduction)
        self.eps = eps

    def elements_and_weight(self, output, target):
        intersection, union, _ = self._areas(output, target)
        return 1 - intersection / (union + self.eps), float(output.numel() // 4)

    def _areas(self, output, target):
        check_same_shape(self, output, target)
        _check_corners(type(self).__name__, output)
        return _areas(output, target)


class GIoULoss(IoULoss):
    """1 - generalised IoU of each box with its target's, which still has a slope where the boxes do not meet.

    torchvision's generalized_box_iou_loss (Rezatofighi et al. 2019). Weight: one a box.
    """

    def elements_and_weight(self, output, target):
        intersection, union, hull = self._areas(output, target)
        iou = intersection / (union + self.eps)
        return 1 - iou + (hull - union) / (hull + self.eps), float(output.numel() // 4)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of boxes that broadcast: the area of the intersection, of the union, and of the smallest box around both."""
    overlap = ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2])
    intersection = _product(ops.clamp(overlap, min=0))
    hull = _product(ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2]))
    union = _product(a[..., 2:] - a[..., :2]) + _product(b[..., 2:] - b[..., :2]) - intersection
    return intersection, union, hull


def _product(sides: Tensor) -> Tensor:  # (..., 2) -> (...)
    return sides[..., 0] * sides[..., 1]


def _check_pairs(name: str, boxes1: Tensor, boxes2: Tensor) -> None:
    for boxes in (boxes1, boxes2):
        _check_corners(name, boxes)
        if boxes.ndim != 2:
            raise ValueError(f"{name} compares boxes (n, 4) with boxes (m, 4), not {boxes1.shape} with {boxes2.shape}")


def _check_corners(name: str, boxes: Tensor) -> None:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} needs boxes (..., 4) of corners x1, y1, x2, y2, not shape {boxes.shape}")
    if boxes.dtype.kind != "f":
        raise TypeError(f"{name} needs boxes of floats, not of {boxes.dtype}")
