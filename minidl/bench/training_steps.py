"""How fast a training step is: the reference workloads, and the same in PyTorch.

Each side of a workload is a process of its own. Their blocks of steps take turns, so that what else happens on the
machine reaches both; a ratio is the median over the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import minidl
from minidl.bench.host import unrestricted_blas
from minidl.spawn import THREAD_VARIABLES

TARGETS = {"W1": 0.65, "W2": 0.65, "W3": 0.9, "W4": 0.6, "W5": 0.8, "W6": 0.7}  # ours / PyTorch eager, at most
MEMORY_TARGETS = {"W2": 0.8, "W4": 0.8}  # peak resident memory, ours / PyTorch's, at most
IMPORT_TARGET, SECOND_STEP_TARGET = 0.4, 0.6  # seconds, at most
BLOCK_SECONDS = 0.25  # how long the steps of one side in one round should take
WARM_UP = 3  # steps
STARTS = 5  # fresh processes for the start-up times
TUNED = {  # the allocator keeps freed memory, as minidl asks it to
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
START_UP = """\
import time; start = time.perf_counter()
import minidl
imported = time.perf_counter() - start
from minidl.bench.workloads import w1
step = w1(); step(); step()
print(imported, time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Row:
    """One workload with so many threads: medians of a step in ms; ratios: medians of ours / theirs over the rounds."""

    workload: str
    threads: int
    ours_ms: float
    torch_ms: float | None = None
    ratio: float | None = None
    tuned_ms: float | None = None
    tuned_ratio: float | None = None
    ours_peak_mb: float | None = None
    torch_peak_mb: float | None = None


@dataclass(frozen=True)
class StartUp:
    """Seconds of a fresh process, medians: until minidl is imported, and until W1 has made its second step."""

    import_seconds: float
    second_step_seconds: float


class Side:
    """A process that runs steps when asked."""

    def __init__(self, side: str, workload: str, threads: int):
        command = [sys.executable, str(Path(__file__).with_name("side.py")), side, workload, str(threads)]
        extra = TUNED if side == "tuned" else {}
        self.name = f"{side} {workload}"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(threads) | extra
        )

    def run(self, steps: int) -> dict:
        """{"seconds": [of each step], "peak_bytes": of the process so far}; RuntimeError if the process has ended."""
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the process of {self.name} ended with exit code {self.process.wait()}: see above")
        return json.loads(line)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.stdout.close()
        with suppress(BrokenPipeError):  # of what was not read
            self.process.stdin.close()
        self.process.wait()


def environment(threads: int) -> dict[str, str]:
    """For a process with so many threads, which finds minidl where this one does."""
    with unrestricted_blas():
        found = dict(os.environ)
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled once, Python's code too, is kept, as a user has it
    path = [str(Path(minidl.__file__).parents[1]), *filter(None, [found.get("PYTHONPATH")])]
    return found | {"PYTHONPATH": os.pathsep.join(path)} | dict.fromkeys(THREAD_VARIABLES, str(threads))


def blas() -> list[dict[str, object]]:
    """The BLAS libraries of our side, as `host.blas` describes them."""
    script = "import json; from minidl.bench.host import blas; print(json.dumps(blas()))"
    command = [sys.executable, "-c", script]
    return json.loads(subprocess.run(command, env=environment(1), capture_output=True, text=True, check=True).stdout)


def has_torch() -> bool:
    return find_spec("torch") is not None


def measure(
    workloads: Iterable[str], threads: Iterable[int], rounds: int, against_torch: bool, report: Callable[[str], None]
) -> list[Row]:
    """A row for each workload and number of threads; `report` is told before each what comes."""
    names = ("ours", "torch", "tuned") if against_torch else ("ours",)
    rows = []
    for count in threads:
        for workload in workloads:
            report(f"{workload}, {count} thread{'s' * (count > 1)}")
            rows.append(_measure(workload, count, rounds, names))
    return rows


def _measure(workload: str, threads: int, rounds: int, names: tuple[str, ...]) -> Row:
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(name, workload, threads)) for name in names}
        steps, peaks = {}, {}
        for name, side in sides.items():
            steps[name] = max(1, round(BLOCK_SECONDS / min(side.run(WARM_UP)["seconds"])))
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, side in sides.items():
                answer = side.run(steps[name])
                times[name].append(statistics.median(answer["seconds"]))
                peaks[name] = answer["peak_bytes"] / 1e6
    row = {"ours_ms": 1e3 * statistics.median(times["ours"]), "ours_peak_mb": peaks["ours"]}
    for name in names[1:]:
        ratios = [ours / theirs for ours, theirs in zip(times["ours"], times[name], strict=True)]
        row[f"{name}_ms"] = 1e3 * statistics.median(times[name])
        row["ratio" if name == "torch" else "tuned_ratio"] = statistics.median(ratios)
    if "torch" in names:
        row["torch_peak_mb"] = peaks["torch"]
    return Row(workload, threads, **row)


def start_up() -> StartUp:
    """Start fresh processes with one thread, with compiled kernels in the cache (a first one fills it)."""
    found = []
    for _ in range(STARTS + 1):
        done = subprocess.run(
            [sys.executable, "-c", START_UP], env=environment(1), capture_output=True, text=True, check=True
        )
        found.append(tuple(map(float, done.stdout.split()[-2:])))
    imports, seconds = zip(*found[1:], strict=True)
    return StartUp(statistics.median(imports), statistics.median(seconds))
