"""Progress on the terminal: live where it is one, else a line now and then."""

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

SECONDS_PER_LINE = 10.0  # between two lines where the output is no terminal


class Terminal:
    """The step of how many, steps per second, the time left, and the last value of each name."""

    def __init__(self, total: int | None, console: Console):
        self.total, self.console = total, console
        self.values: dict[str, float] = {}
        self.first: tuple[int, float] | None = None  # step and time
        self.printed, self.last = time.monotonic(), ""
        self.progress: Progress | None = None

    def begin(self, step: int) -> None:
        """A terminal holds no rows of an earlier run."""

    def write(self, step: int, values: dict[str, int | float]) -> None:
        self.values |= values
        now = time.monotonic()
        self.first = self.first or (step, now)
        line = self._line(step, now)
        if self.console.is_terminal:
            if self.progress is None:
                columns = BarColumn(bar_width=20), TextColumn("{task.description}", markup=False)
                self.progress = Progress(*columns, console=self.console)
                self.progress.add_task(line, total=self.total)
                self.progress.start()
            self.progress.update(self.progress.task_ids[0], completed=step + 1, description=line)
        elif now - self.printed >= SECONDS_PER_LINE:
            self._print(line)
            self.printed, self.last = now, ""
        else:
            self.last = line

    def _line(self, step: int, now: float) -> str:
        done, (first, began) = step + 1, self.first
        parts = [f"step {done}" + (f"/{self.total}" if self.total else "")]
        if step > first and now > began:
            rate = (step - first) / (now - began)
            parts.append(f"{rate:.3g} steps/s")
            if self.total and done < self.total:
                parts.append(f"{timedelta(seconds=round((self.total - done) / rate))} left")
        return "  ".join([*parts, *(f"{name} {value:.4g}" for name, value in self.values.items())])

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
        elif self.last and self.first and time.monotonic() - self.first[1] >= SECONDS_PER_LINE:
            self._print(self.last)  # where a long run ended
