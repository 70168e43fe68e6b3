"""What a check is made of: an Exercise with its budget, and the ways in which an answer can fail."""

from collections.abc import Callable
from dataclasses import dataclass


class Mistake(Exception):
    """The answer is wrong: `message` is a sentence to the learner, `name` says which mistake it is about."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name, self.message = name, message


class OverBudget(BaseException):
    """An operation was used more often than allowed. Not an Exception: no `except` in an answer may hide it."""


@dataclass(frozen=True)
class Exercise:
    """A function that the learner writes.

    name: of the function. check(answer): raises Mistake unless the function `answer` is right. hints: from a nudge to
    nearly the answer. seconds, megabytes: what one check may take, over what the libraries need.
    """

    name: str
    check: Callable[[Callable], None]
    hints: tuple[str, ...]
    seconds: float = 10
    megabytes: int = 256


class Counter:
    """Counts an operation and ends the answer when it is used more than `budget` times; `message` says so."""

    def __init__(self, budget: int, message: str):
        self.budget, self.message, self.count = budget, message, 0

    def add(self) -> None:
        self.count += 1
        if self.count > self.budget:
            raise OverBudget(self.message)
