"""Clipping of gradients, between `backward()` and the optimizer's step.

`train(…, clip_norm=…)` clips by the norm over all ranks.
"""

import math
from collections.abc import Iterable

from minidl.creation import tensor
from minidl.dtypes import float32
from minidl.grad_mode import no_grad
from minidl.kernels import for_array
from minidl.tensor import Tensor


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of `tensors` as of one vector, a tensor without dimensions.

    norm_type: p of the p-norm; infinity for the largest absolute value. RuntimeError for a norm that is not finite, if
    `error_if_nonfinite`.
    """
    p = float(norm_type)
    if not p > 0:
        raise ValueError(f"norm_type={norm_type}, it must be above 0")
    arrays = [x.data for x in _listed(tensors)]
    parts = [_norm(for_array(array), array, p) for array in arrays if array.size]
    if p == math.inf:
        total = math.nan if any(map(math.isnan, parts)) else max(parts, default=0.0)
    else:
        total = sum(part**p for part in parts) ** (1 / p)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"the norm of the gradients is {total}: with error_if_nonfinite=False they are scaled anyway"
        )
    return tensor(total, arrays[0].dtype if arrays else float32)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients, in place, so that their norm is at most `max_norm` (Pascanu et al. 2013, algorithm 1).

    The norm is that of all gradients as one vector, and is returned as it was before. A norm that is not finite makes
    all gradients so, or is a RuntimeError if `error_if_nonfinite`.
    """
    gradients = _gradients(parameters)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    factor = max_norm / (total.item() + 1e-6)
    if not factor >= 1:  # NaN, too
        with no_grad():
            for gradient in gradients:
                gradient.mul_(factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of the gradients, in place, between -clip_value and clip_value."""
    with no_grad():
        for gradient in _gradients(parameters):
            gradient.copy_(gradient.clamp(-clip_value, clip_value))


def _listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in _listed(parameters) if parameter.grad is not None]


def _norm(k, array, p: float) -> float:
    if p == 2:
        return math.sqrt(k.squared_norm(k.reshape(array, (-1,))))
    absolute = k.absolute(array)
    if p == math.inf:
        return float(k.to_numpy(k.max(absolute, None, False)))
    return float(k.to_numpy(k.sum(k.power(absolute, p), None, False))) ** (1 / p)
