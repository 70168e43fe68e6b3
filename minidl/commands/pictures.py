"""The pictures of a command: where they go, and each figure drawn once, by a matplotlib that is loaded only for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.commands.arguments import made_folder
from minidl.files import PICTURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(folder: Path, name: str) -> list[Path]:
    """The paths of `name` in each format of picture, in a folder that is made."""
    folder = made_folder(folder)
    return [folder / f"{name}{ending}" for ending in PICTURES]


def drawn(figure: Callable[[], Figure], *paths: Path | None) -> list[tuple[Path | None, Callable[[Path], None]]]:
    """Files of an Outcome: what `figure` gives, on each of the paths. It is called when the first is written."""
    figure = cache(figure)

    def draw(path: Path) -> None:
        from minidl import plots  # loaded late: matplotlib takes as long as the rest

        plots.save(figure(), path)

    return [(path, draw) for path in paths]
