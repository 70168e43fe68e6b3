"""Mixup: training on mixtures of two samples."""

import numpy as np

from minidl import random
from minidl.creation import tensor
from minidl.tensor import Tensor


class Mixup:
    """Mixes every sample of a batch with another one of it, labels included: (x, y) -> (x, soft y).

    x: (n, ...), floats. y: n labels of int64, or (n, classes) probabilities. The result is λ times the batch plus 1 - λ
    times the batch in another order, λ drawn from Beta(alpha, alpha) once a batch; its y is (n, classes) of x's dtype,
    which `CrossEntropyLoss` takes. Tensors give tensors, arrays give arrays. Call it on the batches in the training
    loop, or in a `collate_fn` on `default_collate(samples)`, where the loader's workers do it.

    Source: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    equation 1 and figure 1.
    """

    def __init__(self, classes: int, alpha: float = 0.2):
        if classes < 1 or not alpha > 0:
            raise ValueError(f"Mixup: classes={classes} and alpha={alpha}, both must be above 0")
        self.classes, self.alpha = classes, alpha

    def __call__(self, x, y, generator: np.random.Generator | None = None):
        if isinstance(x, Tensor):
            return tuple(tensor(mixed) for mixed in self(x.numpy(), np.asarray(y), generator))
        generator = generator or random.default_generator()
        if y.ndim == 1:
            if y.size and not 0 <= y.min() <= y.max() < self.classes:
                raise ValueError(f"Mixup: labels from {y.min()} to {y.max()} for {self.classes} classes")
            y = np.eye(self.classes, dtype=x.dtype)[y]  # (n, classes)
        share = x.dtype.type(generator.beta(self.alpha, self.alpha))
        other = generator.permutation(len(x))
        return tuple(share * part + (1 - share) * part[other] for part in (x, y))
