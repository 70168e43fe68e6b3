"""The losses as functions, as PyTorch has them in torch.nn.functional and torchvision.ops."""

from minidl.nn.losses.binary import BCELoss, BCEWithLogitsLoss, FocalLoss
from minidl.nn.losses.boxes import GIoULoss
from minidl.nn.losses.classification import CrossEntropyLoss, KLDivLoss, NLLLoss
from minidl.nn.losses.regression import HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from minidl.nn.losses.similarity import CosineEmbeddingLoss, TripletMarginLoss
from minidl.ops.losses import IGNORE_INDEX
from minidl.tensor import Tensor


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """See nn.MSELoss."""
    return MSELoss(reduction=reduction)(input, target)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """See nn.L1Loss."""
    return L1Loss(reduction=reduction)(input, target)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """See nn.SmoothL1Loss."""
    return SmoothL1Loss(reduction=reduction, beta=beta)(input, target)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """See nn.HuberLoss."""
    return HuberLoss(reduction, delta)(input, target)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    dim: int = -1,
) -> Tensor:
    """See nn.CrossEntropyLoss; the classes are in dimension `dim`, the last one, and not the second as in PyTorch."""
    loss = CrossEntropyLoss(
        weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing, dim=dim
    )
    return loss(input, target)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    dim: int = -1,
) -> Tensor:
    """See nn.NLLLoss; the classes are in dimension `dim`, the last one, and not the second as in PyTorch."""
    return NLLLoss(weight, ignore_index=ignore_index, reduction=reduction, dim=dim)(input, target)


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """See nn.KLDivLoss."""
    return KLDivLoss(reduction=reduction, log_target=log_target)(input, target)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """See nn.BCELoss."""
    return BCELoss(weight, reduction=reduction)(input, target)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """See nn.BCEWithLogitsLoss."""
    return BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=pos_weight)(input, target)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """See nn.FocalLoss."""
    return FocalLoss(alpha, gamma, reduction)(inputs, targets)


def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """See nn.GIoULoss."""
    return GIoULoss(reduction=reduction, eps=eps)(boxes1, boxes2)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """See nn.CosineEmbeddingLoss."""
    return CosineEmbeddingLoss(margin, reduction=reduction)(input1, input2, target)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """See nn.TripletMarginLoss."""
    return TripletMarginLoss(margin, p, eps, swap, reduction=reduction)(anchor, positive, negative)
