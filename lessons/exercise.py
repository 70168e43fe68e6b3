"""What a check is made of: an Exercise with its budget, and the ways in which an answer can fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from minidl import Tensor

EXACT = 64  # units in the last place by which two ways to write a formula may differ


class Mistake(Exception):
    """The answer is wrong: `message` is a sentence to the learner, `name` says which mistake it is about."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name, self.message = name, message


class Foul(BaseException):
    """The answer breaks a rule, or its budget. Not an Exception: no `except` in an answer may hide it."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name, self.message = name, message


@dataclass(frozen=True)
class Exercise:
    """A function that the learner writes.

    name: of the function. check(answer): raises Mistake unless the function `answer` is right. hints: from a nudge to
    nearly the answer. returns: what the function gives back, as it is said after "return"; None if it gives nothing.
    seconds, megabytes: what one check may take, over what the libraries need. own: dotted names of what minidl has for
    the same task, which is not to be used. stand_ins: by the dotted name of a function, what makes of it the one that
    the answer finds in its place.
    """

    name: str
    check: Callable[[Callable], None]
    hints: tuple[str, ...]
    returns: str | None
    seconds: float = 10
    megabytes: int = 256
    own: tuple[str, ...] = ()
    stand_ins: Mapping[str, Callable[[Callable], Callable]] = field(default_factory=dict)


class Counter:
    """Counts an operation and ends the answer when it is used more than `budget` times; `message` says so."""

    def __init__(self, budget: int, message: str):
        self.budget, self.message, self.count = budget, message, 0

    def add(self) -> None:
        self.count += 1
        if self.count > self.budget:
            raise Foul("over budget", self.message)


def numbers(result) -> np.ndarray:
    """What an answer gave as an array, be it numbers, lists of them, an array or a tensor. TypeError for all else."""
    array = np.asarray(result.detach().numpy() if isinstance(result, Tensor) else result)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"not numbers but {array.dtype}")
    return array


def number(result) -> np.generic:
    """What an answer gave as one number, in its dtype. TypeError for all else."""
    array = numbers(result)
    if array.size != 1:
        raise TypeError(f"not a number but an array of shape {array.shape}")
    return array.reshape(-1)[0]


def check_exact(what: str, result: np.ndarray | np.generic, expected) -> None:
    """Mistake if `result`, which is near `expected`, is not as near as a formula in its dtype comes."""
    precision = np.finfo(result.dtype).eps if result.dtype.kind == "f" else 0.0
    error = np.max(np.abs(result - expected)) / np.max(np.abs(expected))
    if error > EXACT * precision:
        raise Mistake(
            "inexact",
            f"{what} is right to about {int(-np.log10(error))} digits; a formula gives about 15. Finite differences do "
            "not, nor does a small number that is added to be safe.",
        )
