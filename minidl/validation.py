"""What a user gives, refused at the door in one sentence."""

from numbers import Integral, Real
from os import PathLike


def check_int(name: str, value: object) -> None:
    """TypeError unless `value`, which the user calls `name`, is an int: True and False are none."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}, it must be an int")


def check_count(name: str, value: object, least: int = 1) -> None:
    """ValueError unless `value`, which the user calls `name`, is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} is not a whole number of at least {least}")


def check_positive(name: str, value: object) -> None:
    """ValueError unless `value` is a number above 0."""
    if not isinstance(value, Real) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{name}={value!r} is not a positive number")


def check_name_or_path(name: str, value: object) -> None:
    """TypeError unless `value` is a str or a path."""
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be a name or a path, not {value!r}")
