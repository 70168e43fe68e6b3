"""The null model: every row of a table has the same utilisation. A simulator says something where it is closer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from statistics import median

from simulator.validation.rows import Row

# Multiply-adds of one image forward: He et al. 2016, table 1 (ResNet, counted of version 1.5), Krizhevsky 2014
# (AlexNet of one tower), Szegedy et al. 2016 (Inception-v3), Simonyan and Zisserman 2015 (VGG).
MULTIPLY_ADDS = {
    "resnet50": 4.089e9, "resnet152": 11.5e9, "alexnet": 0.714e9, "inception3": 5.7e9, "vgg16": 15.5e9,
}  # fmt: skip
BACKWARD = 3.0  # forward and backward together, in forwards
RECOMPUTED = 4 / 3  # with all of the forward once more, over that


def flops(row: Row) -> float | None:
    """What a spreadsheet has for a step, from the columns alone; None where they say too little.

    Six FLOPs for each parameter of a token's products and each token, and attention of all tokens to all; one third
    more with full recomputation. Nothing here knows the simulator, nor the simulator this.
    """
    if row.global_batch is None:
        return None
    if row.model in MULTIPLY_ADDS:
        return 2 * BACKWARD * MULTIPLY_ADDS[row.model] * row.global_batch
    try:
        layers, hidden, heads, head_dim, ffn, seq, vocab = row.need(
            "layers", "hidden", "heads", "head_dim", "ffn", "seq", "vocab"
        )
    except ValueError:
        return None
    attention = 2 * hidden * head_dim * (heads + (row.kv_heads or heads))
    feed_forward = (3 if row.gated_mlp else 2) * hidden * ffn * (row.experts_per_token or 1)
    products = layers * (attention + feed_forward) + vocab * hidden
    token = 2 * BACKWARD * (products + layers * heads * head_dim * seq * 2)
    return token * seq * row.global_batch * (RECOMPUTED if row.recompute == "full" else 1.0)


def null_errors(
    rows: Sequence[Row], best_seconds: Sequence[float | None], key: Callable[[Row], Hashable]
) -> list[float | None]:
    """The relative error of each row, predicted with the median utilisation of the other rows of the same key.

    best_seconds: of each row the time at full utilisation. None where nothing measured, or no other row, is there.
    """
    alike = defaultdict(list)
    for place, (row, seconds) in enumerate(zip(rows, best_seconds, strict=True)):
        if seconds and row.step_seconds:
            alike[key(row)].append((place, seconds / row.step_seconds))
    errors: list[float | None] = [None] * len(rows)
    for group in alike.values():
        for place, utilisation in group:
            others = [other for one, other in group if one != place]
            errors[place] = utilisation / median(others) - 1 if others else None
    return errors
