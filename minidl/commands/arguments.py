"""The arguments of commands, checked at the door."""

import argparse
import math
import os
import sys
from pathlib import Path

from minidl import files
from minidl.kernels.cuda_available import missing

SIZES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


class Refused(Exception):
    """One clear sentence for the user, who asked for something that cannot be done."""


def called(name: str) -> str:
    """How the command line `name` was called: by its console script, or by `python -m`."""
    return name if Path(sys.argv[0]).name == name else f"python -m {name}"


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments; shows descriptions as they are written. Its commands, too."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message):
        raise Refused(f"{message} (see `{self.prog} --help`)")


def count(text: str) -> int:
    """The type of an argument that counts something: a whole number of at least 1."""
    return _at_least(1, text)


def seed(text: str) -> int:
    """The type of an argument that seeds random numbers: a whole number of at least 0."""
    return _at_least(0, text)


def amount(text: str) -> float:
    """The type of an argument that counts very many things: 300e9, 300_000_000_000 or 300B."""
    size = SIZES.get(text[-1:].upper())
    try:
        value = float(text[:-1]) * size if size else float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, as 300e9 or 300B is")
    return value


def positive(text: str) -> float:
    """The type of an argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return value


def picture(text: str) -> Path:
    """The type of an argument that is the path of a picture."""
    try:
        files.check_picture(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def check_writable(*paths: Path | None) -> None:
    """Refused unless a file can be written to each path that is given, and no two lead to one file; leaves no trace."""
    files_given = set()
    for path in paths:
        if path is None:
            continue
        try:
            files.check_writable(path)
        except OSError as error:
            raise Refused(f"cannot write {path}: {error.strerror}") from None
        if path.exists() and not path.is_file():
            continue  # a pipe or a device takes one after the other
        target = Path(os.path.realpath(path))  # what a link leads to, there or not yet
        if target in files_given:
            raise Refused(f"{path} is given twice: one file would replace the other")
        files_given.add(target)


def check_device(name: str) -> None:
    """Refused unless the device that --device names is there."""
    if name == "cuda" and (why := missing()):
        raise Refused(f"--device cuda: {why}")


def made_folder(path: Path) -> Path:
    """A folder to write to, made with those above it; Refused where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is not a folder" if path.exists() else error.strerror
        raise Refused(f"cannot make the folder {path}: {reason}") from None
    return path
