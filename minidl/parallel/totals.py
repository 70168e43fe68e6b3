"""Totals: what all ranks add up of a batch."""

from typing import NamedTuple


class Totals(NamedTuple):
    """What is reduced of a batch: the sum of the losses and its weight; in evaluation, how many answers were right."""

    loss: float
    weight: float
    correct: float
    answers: float
