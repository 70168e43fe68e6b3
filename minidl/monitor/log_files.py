"""Logs in files of lines, which are whole after every line, whatever ends the program."""

import csv
import errno
import io
import json
import math
import re
from os import PathLike
from pathlib import Path

from minidl import files

STEP = re.compile("[0-9]{1,18}")


class LineFile:
    """A file to which lines are added, each by one call of the operating system; it is opened for the first one."""

    def __init__(self, path: str | PathLike, append: bool):
        files.check_writable(path)
        self.given, self.path, self.append = path, Path(path).absolute(), append
        self.file: io.FileIO | None = None

    def begin(self, step: int) -> None:
        """The first row will be of this step: drop the rows that an earlier run left from there on, or all."""
        self.close()
        self.file = self._opened()
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
        """The whole lines that are there; a program that was killed may have left part of one after them.

        ValueError for what is no text, or has no whole line.
        """
        if self.file is None:
            content = self.path.read_bytes() if self.path.is_file() else b""
        else:
            self.file.seek(0)
            content = self.file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if b"\0" in whole or content and not whole:
            raise ValueError("it has no whole line of text")
        return whole.decode()

    def refuse(self, why: str) -> None:
        """Raise the error for a file that no earlier run can have left so."""
        raise ValueError(f"{self.given} is no log to go on with: {why}")

    def replace(self, text: str) -> None:
        """Write the file anew."""
        files.write(self.path, text)
        self.file.close()
        self.file = self._opened()

    def _opened(self) -> io.FileIO:
        return open(self.path, "a+b", buffering=0)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class CSVFile(LineFile):
    """A header, and a row per step; the first column is the step. A number that is not finite is nan, inf or -inf."""

    def __init__(self, path: str | PathLike, append: bool):
        super().__init__(path, append)
        rows = []
        try:
            rows = self._rows() if append else []
        except (ValueError, csv.Error) as error:
            self.refuse(f"{error}")
        self.columns = rows[0] if rows else ["step"]
        if self.columns[:1] != ["step"] or not all(row and STEP.fullmatch(row[0]) for row in rows[1:]):
            self.refuse("its first column is not the step")
        if len(set(self.columns)) < len(self.columns) or any(len(row) > len(self.columns) for row in rows):
            self.refuse("it has two columns of one name, or a row with more of them than the first")

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
            if append:
                self._steps()
        except (ValueError, RecursionError):
            self.refuse("a line of it is no JSON object with a step")

    def _steps(self) -> list[tuple[int, str]]:
        """The step of each line, and the line. ValueError for one without."""
        found = []
        for line in self.text().split("\n")[:-1]:
            match json.loads(line):
                case {"step": int(step)} if not isinstance(step, bool) and step >= 0:
                    found.append((step, line))
                case _:
                    raise ValueError("no step")
        return found

    def drop_from(self, step: int) -> None:
        kept = [line for found, line in self._steps() if found < step]
        self.replace("".join(line + "\n" for line in kept))

    def write(self, step: int, values: dict[str, int | float]) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.add(json.dumps({"step": step, **numbers}, ensure_ascii=False))
