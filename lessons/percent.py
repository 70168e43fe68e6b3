"""Reading the percent format: a Python file whose cells start at lines `# %%` or `# %% [markdown]`.

Jupytext, VS Code, Spyder and PyCharm read the same files as notebooks.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

_MARKER = re.compile(r"# %%(?P<rest>.*)$")


@dataclass(frozen=True)
class Cell:
    """One cell: `kind` is "code" or "markdown"; `line` is the line of the file on which `source` starts, from 1.

    The source of a markdown cell has its leading `# ` taken off.
    """

    kind: str
    line: int
    source: str

    def compile(self, path: Path) -> CodeType:
        """A code cell as code whose line numbers are those of the file, so that breakpoints and tracebacks fit."""
        return compile("\n" * (self.line - 1) + self.source, str(path), "exec")


def read_cells(path: Path) -> list[Cell]:
    """The cells of the file in order, without empty ones; what stands before the first marker is a code cell."""
    cells, kind, first, lines = [], "code", 1, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        marker = _MARKER.match(line)
        if marker is None:
            lines.append(line)
            continue
        cells.append(_cell(kind, first, lines))
        kind = "markdown" if re.search(r"\[(markdown|md)\]", marker["rest"]) else "code"
        first, lines = number + 1, []
    cells.append(_cell(kind, first, lines))
    return [cell for cell in cells if cell.source]


def _cell(kind: str, first: int, lines: list[str]) -> Cell:
    """A cell without the blank lines around it."""
    if kind == "markdown":
        lines = [re.sub(r"^# ?", "", line) for line in lines]
    filled = [i for i, line in enumerate(lines) if line.strip()]
    if not filled:
        return Cell(kind, first, "")
    return Cell(kind, first + filled[0], "\n".join(lines[filled[0] : filled[-1] + 1]))
