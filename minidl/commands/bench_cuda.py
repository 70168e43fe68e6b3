"""`python -m minidl bench cuda`: how fast the kernels and training steps on a GPU are."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import minidl
from minidl.bench.host import machine
from minidl.commands.arguments import Refused, check_writable
from minidl.commands.driver import Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import progress
from minidl.kernels.cuda_available import missing
from minidl.units import duration, scaled

EMULATED_SCALE = 128  # sizes are divided by: the emulator runs a GPU's threads one after another
CUDA = """\
How fast minidl's kernels are on an NVIDIA GPU, in at most five minutes: what a
launch costs; of kernels that move memory the share of the bandwidth of the
driver's copy; of products, convolution and attention the share of PyTorch's
speed in float32 without TF32, where PyTorch finds the GPU; and training steps
of the workloads W1, W2 and W4 of `bench train` beside PyTorch's. With
MINIDL_CUDA=emulated it runs tiny sizes, and its times say nothing of a GPU.
"""


def add_parser(benchmarks) -> None:
    parser = benchmarks.add_parser("cuda", help="how fast kernels and steps on a GPU are", description=CUDA)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results for a program to read")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> Outcome:
    """Measure."""
    check_writable(chosen.json)
    if why := missing():
        raise Refused(f"bench cuda: {why}")
    from minidl.bench import gpu  # and with it Numba and the GPU

    name = minidl.cuda.get_device_name()
    scale = EMULATED_SCALE if name == "emulated" else 1
    with progress() as tell:
        tell("launches")
        launch = gpu.launch_seconds(1000 // scale)
        copy = gpu.copy_bandwidth(max(1 << 12, (1 << 28) // scale**2))
        rows = gpu.measure_kernels(scale, copy, tell)
        steps = []
        for workload in gpu.STEPS if scale == 1 else ():
            tell(f"{workload}, a training step")
            steps.append(replace(gpu.measure_step(workload), torch_ms=gpu.torch_step_ms(workload)))
    document = {
        "benchmark": "cuda",
        "machine": machine() | {"gpu": name},
        "launch_seconds": launch,
        "copy_bytes_per_second": copy,
        "kernels": [asdict(row) for row in rows],
        "steps": [asdict(row) for row in steps],
        "step_targets": gpu.STEP_TARGETS,
    }
    return Outcome([(chosen.json, document)], lambda console: show(console, document, rows, steps))


def show(console: Console, document: dict, rows, steps) -> None:
    """The GPU, and the tables."""
    name, launch = document["machine"]["gpu"], document["launch_seconds"]
    if name == "emulated":
        console.print("The emulator: these are not the times of a GPU.", style="bold")
    copy = scaled(document["copy_bytes_per_second"], "B/s")
    console.print(f"{name}: a launch takes {duration(launch)}, the driver copies {copy}", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("kernel", "shape", "time", "launches\n(of time)", "speed", "of\ncopy", "of\nlibrary", "goal"):
        table.add_column(heading, justify="left" if heading in ("kernel", "shape") else "right", no_wrap=True)
    for row in rows:
        multiplies = row.flops_per_second > 0
        speed = scaled(row.flops_per_second, "FLOP/s") if multiplies else scaled(row.bytes_per_second, "B/s")
        table.add_row(
            row.name, "×".join(map(str, row.shape)), duration(row.seconds),
            f"{row.launches} ({_share(min(1.0, row.launches * launch / row.seconds))})", speed,
            _share(row.share_of_copy), _share(row.share_of_library),
            "" if row.target is None else f"≥ {row.target:.0%}",
        )  # fmt: skip
    print_table(console, table)
    if not steps:
        return
    table = Table("step", "first", "ours", "launches × cost", "PyTorch", "ratio", "wanted",
                  box=None, header_style="bold", pad_edge=False)  # fmt: skip
    for row in steps:
        wanted = document["step_targets"].get(row.workload)
        table.add_row(
            row.workload, duration(row.first_step_seconds), f"{row.ours_ms:.3g} ms",
            f"{row.launches} × {duration(launch)} = {duration(row.launches * launch)}",
            "" if row.torch_ms is None else f"{row.torch_ms:.3g} ms",
            "" if row.torch_ms is None else f"{row.ours_ms / row.torch_ms:.2f}", f"≤ {wanted}" if wanted else "",
        )  # fmt: skip
    print_table(console, table)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
