"""How objects show themselves: one line as a `repr`; whole where they are printed, and in a notebook.

Rich is imported when something is shown: workers import these objects and show nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Item = TypeVar("Item")


class Displayed:
    """An object that `print`, a notebook and a rich console show as what its `__rich__` gives.

    columns: how wide that may be.
    """

    columns: ClassVar[int] = 80

    def __rich__(self) -> RenderableType:
        """What is shown, for rich."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in _printed(self).export_text().splitlines())

    def _repr_html_(self) -> str:
        """For a notebook: the text, in the weights and colours of a terminal."""
        from rich.jupyter import JUPYTER_HTML_FORMAT

        return _printed(self).export_html(code_format=JUPYTER_HTML_FORMAT, inline_styles=True)


def _printed(shown: Displayed) -> Console:
    """A console that has recorded it. It is the same on a terminal, in a pipe and in a notebook."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        record=True,
        width=shown.columns,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(shown, highlight=False)
    return console


def cut(items: Sequence[Item], most: int) -> list[Item | str]:
    """The items; of more than `most`, only the first and the last ones. Between these stands how many are left out.

    most: an even number.
    """
    left_out = len(items) - most
    if left_out <= 0:
        return list(items)
    return [*items[: most // 2], f"… {left_out:,} more …", *items[-(most // 2) :]]


def facts(title: str, rows: Iterable[tuple[str, str]]) -> RenderableType:
    """A line, and below it a name and a value a row. They are plain text: nothing in them is markup."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text(title, overflow="fold"), fact_table(rows))


def fact_table(rows: Iterable[tuple[str, str]]) -> Table:
    """A name and a value a row, as plain text."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold", min_width=1)  # a mark that combines with the letter before it has no width
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table
