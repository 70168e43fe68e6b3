"""What pictures the commands write. It needs no matplotlib, which takes long to load."""

from argparse import ArgumentTypeError
from pathlib import Path

ENDINGS = (".png", ".svg")


def picture(text: str) -> Path:
    """The type of an argument that is the path of a picture."""
    path = Path(text)
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentTypeError(f"{text!r} does not end in {' or '.join(ENDINGS)}")
    return path
