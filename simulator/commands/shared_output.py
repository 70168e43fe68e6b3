"""What the commands write and say alike: the options for files, tables without lines, sentences, where files are."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.commands.plan_options import crowding
from simulator.hardware import Cluster


def add_file_options(add: Callable[..., object], name: str) -> None:
    """--out for the pictures of the command `name`, and --json. add: `add_argument` of a parser."""
    add("--out", type=Path, default=Path(), metavar="DIR", help=f"folder for {name}.png and .svg (default: here)")
    add("--json", type=Path, metavar="PATH", help="also write the numbers here")


def plain_table(gap: int = 2) -> Table:
    """A table without lines, whose columns are so many characters apart."""
    return Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")


def say(console: Console, *lines: str) -> None:
    """Print lines as they are, without colours."""
    for line in lines:
        console.print(line, highlight=False, markup=False)


def say_crowding(console: Console, workers: int, cluster: Cluster) -> None:
    """A sentence where so many workers are more than the cores that they share."""
    if cluster.processors and (crowded := crowding(workers, cluster.processors.cores)):
        say(console, crowded)


def say_written(console: Console, *paths: Path | None, more: str = "") -> None:
    """Where the files are that were asked for, and what else there is."""
    if written := [str(path) for path in paths if path]:
        say(console, ", ".join(written) + more)
