"""Logs in files of lines, which are whole after every line, whatever ends the program."""

import csv
import errno
import io
import json
import math
from os import PathLike
from pathlib import Path

from minidl import files


class LineFile:
    """A file to which lines are added, each by one call of the operating system."""

    def __init__(self, path: str | PathLike, append: bool):
        self.path, self.append = Path(path), append
        self.file = open(path, "a+b", buffering=0)

    def begin(self, step: int) -> None:
        """The first row will be of this step: drop the rows that an earlier run left from there on, or all."""
        if self.append:
            self.drop_from(step)
        else:
            self.file.truncate(0)

    def add(self, line: str) -> None:
        """Add a line; if it does not fit on the disk, the file is as it was before, and OSError is raised."""
        data, end = (line + "\n").encode(), self.file.seek(0, io.SEEK_END)
        try:
            if self.file.write(data) < len(data):
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        except BaseException:
            self.file.truncate(end)
            raise

    def text(self) -> str:
        """The whole lines that are there; a program that was killed may have left part of one after them."""
        self.file.seek(0)
        text = self.file.read().decode()
        return text[: text.rfind("\n") + 1]

    def replace(self, text: str) -> None:
        """Write the file anew."""
        files.write(self.path, text)
        self.file.close()
        self.file = open(self.path, "a+b", buffering=0)

    def close(self) -> None:
        self.file.close()


class CSVFile(LineFile):
    """A header, and a row per step; the first column is the step. A number that is not finite is nan, inf or -inf."""

    def __init__(self, path: str | PathLike, append: bool):
        super().__init__(path, append)
        rows = self._rows() if append else []
        self.columns = rows[0] if rows else ["step"]
        if self.columns[0] != "step" or not all(row and row[0].isdecimal() for row in rows[1:]):
            self.close()
            raise ValueError(f"{path} is no log to go on with: its first column is not the step")

    def _rows(self) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.text(), newline="")))

    def drop_from(self, step: int) -> None:
        self._replace([row for row in self._rows()[1:] if int(row[0]) < step])

    def write(self, step: int, values: dict[str, int | float]) -> None:
        new = [name for name in values if name not in self.columns]
        if new or not self.file.seek(0, io.SEEK_END):
            rows, self.columns = self._rows()[1:], self.columns + new
            self._replace(rows)
        self.add(_row([step, *(values.get(name, "") for name in self.columns[1:])]))

    def _replace(self, rows: list[list[str]]) -> None:
        width = len(self.columns)
        rows = [self.columns, *(row + [""] * (width - len(row)) for row in rows)]
        self.replace("".join(_row(row) + "\n" for row in rows))


def _row(cells: list) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


class JSONLinesFile(LineFile):
    """An object per line, with the step and the values; a number that is not finite, which JSON lacks, is null."""

    def __init__(self, path: str | PathLike, append: bool):
        super().__init__(path, append)
        try:
            self._steps(self.text().splitlines() if append else [])
        except (ValueError, TypeError, KeyError):
            self.close()
            raise ValueError(f"{path} is no log to go on with: a line of it is no JSON object with a step") from None

    def _steps(self, lines: list[str]) -> list[int]:
        return [int(json.loads(line)["step"]) for line in lines]

    def drop_from(self, step: int) -> None:
        lines = self.text().splitlines()
        kept = [line for line, found in zip(lines, self._steps(lines), strict=True) if found < step]
        self.replace("".join(line + "\n" for line in kept))

    def write(self, step: int, values: dict[str, int | float]) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.add(json.dumps({"step": step, **numbers}, ensure_ascii=False))
