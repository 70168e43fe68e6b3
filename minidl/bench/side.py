"""One side of `bench train`, in a process of its own: `side.py SIDE WORKLOAD THREADS`.

It answers each line on its standard input, a number of steps, by running them, with one line of JSON: the seconds of
each, and the peak of resident memory of the process so far. Run by its path, so that PyTorch's side does not load
minidl.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable


def build(side: str, workload: str, threads: int) -> Callable[[], object]:
    """The function of a step."""
    if side == "ours":
        minidl = importlib.import_module("minidl")
        minidl.set_num_threads(threads)
        minidl.manual_seed(0)
        return importlib.import_module("minidl.bench.workloads").BUILD[workload]()
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return importlib.import_module("torch_workloads").BUILD[workload](side == "tuned")


def serve(side: str, workload: str, threads: int) -> None:
    """Run steps until the standard input ends."""
    step = build(side, workload, threads)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
