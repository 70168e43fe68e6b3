"""One side of `bench train`, in a process of its own: `python -m minidl.bench.side SIDE WORKLOAD THREADS`.

For each line on its standard input, a number of steps, it runs them and answers with one line of JSON: the seconds of each,
and at which peak of resident memory the process is.
"""

import importlib
import json
import resource
import sys
import time

import minidl
from minidl.bench.machine import blas

SIDES = ("ours", "torch", "tuned")


def build(side: str, workload: str, threads: int):
    """The function of a step."""
    if side == "ours":
        minidl.set_num_threads(threads)
        return importlib.import_module("minidl.bench.workloads").BUILD[workload]()
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return importlib.import_module("minidl.bench.torch_workloads").BUILD[workload](side == "tuned")


def serve(side: str, workload: str, threads: int) -> None:
    step = build(side, workload, threads)
    print(json.dumps({"blas": blas()}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes, on Linux
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
