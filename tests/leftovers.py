"""Finding the processes that a test has started."""

import os
import time
from pathlib import Path

GUARD = 60.0  # seconds: only a limit on a test that hangs


def alive(marker):
    """The processes whose environment holds `marker`, but for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def children(process):
    """The processes that threads of `process` have started and that have not been waited for."""
    return [
        int(pid) for task in Path(f"/proc/{process}/task").iterdir() for pid in (task / "children").read_text().split()
    ]


def until(condition):
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.01)
