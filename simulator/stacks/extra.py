"""Extra: kernels that a stack has beside those of minidl."""

from typing import NamedTuple


class Extra(NamedTuple):
    """Kernels after each kernel of the name `after`, on what that has made.

    kernels: how many; passes: how often they read or write all of it, together.
    """

    after: str
    kernels: int
    passes: float
