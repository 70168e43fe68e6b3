"""Loss: what all losses share, and the one place where sums become means."""

from minidl.nn.module import Module
from minidl.tensor import Tensor


class Loss(Module):
    """A subclass writes `elements_and_weight`, or `sum_and_weight` alone if it has no elements to give.

    Calling the loss gives what `reduction` says: the "mean", which is the sum over the weight; the "sum"; or with
    "none" the elements. ValueError for another reduction.
    """

    reduction = "mean"
    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, *, reduction: str = "mean"):
        if reduction not in self.reductions:
            names = ", ".join(f'"{name}"' for name in self.reductions)
            raise ValueError(f"{type(self).__name__}: reduction={reduction!r}, it must be one of {names}")
        self.reduction = reduction

    def keep(self, name: str, values: Tensor | None) -> None:
        """Keep an option that is a tensor, such as class weights, as the buffer `name`: part of the loss's state.

        TypeError for what is no tensor; ValueError for one that requires a gradient, as it would get none.
        """
        if values is not None and not isinstance(values, Tensor):
            kind = type(values).__name__
            raise TypeError(f"{type(self).__name__}: {name} must be a tensor, minidl.tensor(...), not a {kind}")
        if values is not None and values.requires_grad:
            raise ValueError(f"{type(self).__name__}: {name} requires a gradient and gets none here: detach() it")
        self.register_buffer(name, values)

    def elements_and_weight(self, *inputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """The loss of each target, and the weight that divides their sum to the mean: a number or a scalar tensor."""
        raise NotImplementedError(f"{type(self).__name__} has no elements_and_weight")

    def sum_and_weight(self, *inputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """The loss summed over all targets, a scalar tensor, and the weight that divides it to the mean."""
        elements, weight = self.elements_and_weight(*inputs)
        return elements.sum(), weight

    def over_classes(self, split) -> "Loss":
        """The same loss of outputs of which each rank has some of the classes; split: a parallel.losses.SplitClasses.

        ValueError if it needs all of them on every rank, as most losses do.
        """
        raise ValueError(
            f"{type(self).__name__} needs whole outputs, but the model's last layer splits its classes over {split}: "
            "give it gather_output=True, or use CrossEntropyLoss"
        )

    def right_answers(self, output: Tensor, target: Tensor) -> tuple[Tensor | float, float]:
        """How many labels the output (..., classes) gets right, and of how many; 0 of 0 if targets are no labels."""
        if target.dtype.kind != "i" or output.shape[:-1] != target.shape:
            return 0.0, 0.0
        return (output.argmax(-1) == target).sum(), target.numel()

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.reduction == "none":
            return self.elements_and_weight(*inputs)[0]
        total, weight = self.sum_and_weight(*inputs)
        return total if self.reduction == "sum" else total / weight

    def extra_repr(self):
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class ElementwiseLoss(Loss):
    """A loss of each element of an output and a target of one shape: a subclass writes `elements`.

    Weight: one an element. ValueError for two shapes: broadcasting a target is nearly always a mistake.
    """

    def elements(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each element."""
        raise NotImplementedError(f"{type(self).__name__} has no elements")

    def elements_and_weight(self, output, target):
        check_same_shape(self, output, target)
        return self.elements(output, target), float(output.numel())


def check_same_shape(loss: Loss, output: Tensor, target: Tensor) -> None:
    """ValueError unless both have one shape."""
    if output.shape != target.shape:
        raise ValueError(f"{type(loss).__name__}: the output has shape {output.shape}, the target {target.shape}")


def check_range(loss: Loss, name: str, value: float, least: float = 0, most: float = float("inf")) -> None:
    """ValueError unless least <= value <= most."""
    if not least <= value <= most:
        bounds = f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
        raise ValueError(f"{type(loss).__name__}: {name}={value}, it must be {bounds}")


def constant(values: Tensor | None, like: Tensor) -> Tensor | None:
    """An option of a loss, such as its class weights, on the device and in the dtype of `like`."""
    return None if values is None else values.to(like.device, like.dtype)
