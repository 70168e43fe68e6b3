"""What is said once, whoever finds it out first: this process or one of its workers."""

import logging

_said: set[str] = set()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has. The launcher drops one that a worker logs, if it has been said."""
    if is_new(text):
        logging.getLogger("minidl").warning(text, extra={"once": text})


def is_new(text: str) -> bool:
    """Whether `text` is said for the first time, which it is by this."""
    new = text not in _said
    _said.add(text)
    return new
