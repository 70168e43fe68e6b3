"""Whether a tape is recorded: `no_grad` and its kin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

enabled = True  # read by every op: `grad_mode.enabled` costs less than a call


@contextmanager
def no_grad() -> Iterator[None]:
    """Record no tape inside the `with` block, or in the function that it decorates."""
    with set_grad_enabled(False):
        yield


@contextmanager
def enable_grad() -> Iterator[None]:
    """Record a tape inside the `with` block, even within `no_grad()`."""
    with set_grad_enabled(True):
        yield


class set_grad_enabled:
    """Record a tape from now on, or not: until the end of the `with` block, or in the function that it decorates."""

    def __init__(self, enabled: bool):
        self.enabled, self.before = enabled, _switch(enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error) -> None:
        _switch(self.before)

    def __call__(self, function: Callable) -> Callable:
        self.__exit__()

        @wraps(function)
        def decorated(*args, **options):
            with set_grad_enabled(self.enabled):
                return function(*args, **options)

        return decorated


def is_grad_enabled() -> bool:
    """Whether a tape is recorded now."""
    return enabled


def _switch(to: bool) -> bool:
    """Set `enabled`, and return what it was."""
    global enabled
    before, enabled = enabled, to
    return before
