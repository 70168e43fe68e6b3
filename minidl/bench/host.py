"""The machine a benchmark runs on, and an environment in which its BLAS is as a user would have it."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # hold OpenBLAS to something older than the processor


@contextmanager
def unrestricted_blas() -> Iterator[None]:
    """Inside, processes are started without BLAS_VARIABLES; those that are running are not changed."""
    kept = {name: os.environ.pop(name) for name in BLAS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def machine() -> dict[str, object]:
    """Processor, cores that this process may use, load average of the last minute, versions of Python and NumPy."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas() -> list[dict[str, object]]:
    """The BLAS libraries of this process: name, version, the processor they take this one for, their threads."""
    return [
        {
            "name": library["internal_api"],
            "version": library["version"],
            "architecture": library.get("architecture", "unknown"),
            "threads": library["num_threads"],
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
